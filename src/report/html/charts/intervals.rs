use plotters::prelude::*;

use super::{GREEN, GREY, LETTERS, ORANGE, ROW, beside, digits, drawn, middle, row_at, rows_axis, ticks};
use crate::report::units::claim;
use crate::stats::{RatioInterval, Verdict};

/// A time, the ratio of its means, and that one's interval.
pub(in super::super) type Ratio = (&'static str, f64, Option<RatioInterval>);

/// The ends of an axis that holds every interval, and the line of no difference.
pub(in super::super) fn reach<'a>(ratios: impl IntoIterator<Item = &'a Ratio>) -> [f64; 2] {
    let ends = |(_, ratio, interval): &Ratio| interval.map_or([*ratio; 2], |it| [it.low, it.high]);
    let [low, high] =
        ratios.into_iter().flat_map(ends).fold([1.0, 1.0], |[low, high]: [f64; 2], end| [low.min(end), high.max(end)]);
    let margin = (high / low).powf(0.05).max(1.02);
    [low / margin, high * margin]
}

/// The ratios of a pair with their intervals, the first on top, on a logarithmic axis; what an interval allows to say is
/// told by colour and in words.
pub(in super::super) fn intervals(ratios: &[Ratio], [low, high]: [f64; 2]) -> Option<String> {
    let rows = ratios.len();
    if rows == 0 || !(low > 0.0 && high.is_finite()) {
        return None;
    }
    let told = |interval: Option<RatioInterval>| match interval.map(RatioInterval::verdict) {
        Some(Verdict::Faster) => (GREEN, Verdict::Faster.to_string()),
        Some(Verdict::Slower) => (ORANGE, Verdict::Slower.to_string()),
        Some(Verdict::NoDifferenceShown) => (GREY, Verdict::NoDifferenceShown.to_string()),
        None => (GREY, "no interval".to_owned()),
    };
    drawn(60 + 30 * rows as u32, |canvas| {
        let mut chart = ChartBuilder::on(canvas)
            .margin(8)
            .margin_right(270)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d((low..high).log_scale().with_key_points(ticks(low, high)), rows_axis(rows))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .label_style(LETTERS)
            .y_label_formatter(&|place| ratios[row_at(*place, rows)].0.to_owned())
            .x_label_formatter(&|ratio| format!("{}x", digits(*ratio)))
            .x_desc("time before / time after")
            .draw()?;
        let same = [(1.0, -ROW / 2), (1.0, middle(0, rows) + ROW / 2)];
        chart.draw_series([PathElement::new(same, BLACK.mix(0.6).stroke_width(2))])?;
        for (row, (_, ratio, interval)) in ratios.iter().enumerate() {
            let (at, (color, verdict)) = (middle(row, rows), told(*interval));
            let line = |ends| PathElement::new(ends, color.stroke_width(3));
            if let Some(RatioInterval { low, high }) = *interval {
                let caps = [low, high].map(|end| line([(end, at - 20), (end, at + 20)]));
                chart.draw_series([line([(low, at), (high, at)])].into_iter().chain(caps))?;
            }
            chart.draw_series([Circle::new((*ratio, at), 5, color.filled())])?;
            beside(canvas, chart.backend_coord(&(high, at)), format!("{} {verdict}", claim(*ratio, *interval)))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ratio_says_in_colour_and_words_what_its_interval_shows() {
        let ratio = |name, ratio, interval: Option<(f64, f64)>| {
            (name, ratio, interval.map(|(low, high)| RatioInterval { low, high }))
        };
        let all = [
            ratio("a", 2.0, Some((1.8, 2.2))),
            ratio("b", 0.5, Some((0.4, 0.6))),
            ratio("c", 1.1, Some((0.9, 1.3))),
            ratio("d", 3.0, None),
        ];
        let svg = intervals(&all, reach(&all)).expect("it can be drawn");
        for (RGBColor(red, green, blue), marks) in [(GREEN, 1), (ORANGE, 1), (GREY, 2)] {
            let fill = format!("fill=\"#{red:02X}{green:02X}{blue:02X}\"");
            assert_eq!(svg.matches(&fill).count(), marks, "{fill}: {svg}");
        }
        let told = [
            "2.00x [1.80, 2.20] faster",
            "0.50x [0.40, 0.60] slower",
            "~1.10x [0.90, 1.30] no difference shown",
            "3.00x no interval",
        ];
        for text in told.iter().chain(&["0.5x", "1x", "2x"]) {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert_eq!(intervals(&[], [0.9, 1.1]), None);
    }
}
