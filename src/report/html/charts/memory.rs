use plotters::prelude::*;

use super::{BLUE, LETTERS, ORANGE, beside, digits, drawn, middle, row_at, rows_axis};
use crate::report::units::{megabytes, or_missing};

/// Memory of a phase, in MB: its name, the peak, and what is in use at its end.
pub(in super::super) type Phase = (String, Option<f64>, Option<f64>);

/// Two bars for each phase, the first on top: peak, and in use at its end. `most` is the end of the axis, so that charts
/// compare.
pub(in super::super) fn phases(phases: &[Phase], most: f64) -> Option<String> {
    let rows = phases.len();
    if rows == 0 || most <= 0.0 {
        return None;
    }
    drawn(60 + 36 * rows as u32, |canvas| {
        let mut chart = ChartBuilder::on(canvas)
            .margin(8)
            .margin_right(160)
            .x_label_area_size(36)
            .y_label_area_size(180)
            .build_cartesian_2d(0.0..most * 1.02, rows_axis(rows))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .y_label_formatter(&|place| phases[row_at(*place, rows)].0.clone())
            .x_label_formatter(&|mb| digits(*mb))
            .label_style(LETTERS)
            .x_desc("MB")
            .draw()?;
        for (index, (_, peak, current)) in phases.iter().enumerate() {
            let at = middle(index, rows);
            let bars = [(peak, BLUE, at, at + 32), (current, ORANGE, at - 32, at)];
            let bars = bars.into_iter().filter_map(|(figure, color, from, to)| {
                Some(Rectangle::new([(0.0, from), ((*figure)?, to)], color.filled()))
            });
            chart.draw_series(bars)?;
            let figures = [*peak, *current].map(|figure| or_missing(figure, megabytes)).join(", ");
            beside(canvas, chart.backend_coord(&(most * 1.02, at)), figures)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_missing_has_no_bar_but_a_word() {
        let all = [("weights".to_owned(), Some(90.0), Some(40.0)), ("forward".to_owned(), Some(120.0), None)];
        let svg = phases(&all, 120.0).expect("it can be drawn");
        let bars = |RGBColor(red, green, blue): RGBColor| {
            svg.matches(&format!("fill=\"#{red:02X}{green:02X}{blue:02X}\"")).count()
        };
        assert_eq!((bars(BLUE), bars(ORANGE)), (2, 1), "{svg}");
        for text in ["weights", "90.0 MB, 40.0 MB", "forward", "120 MB, n/a"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert_eq!(phases(&[], 120.0), None);
    }
}
