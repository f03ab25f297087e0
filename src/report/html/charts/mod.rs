//! Drawings of samples. Lines and letters take the page's own colour, so that they read in light and dark.

mod intervals;
mod memory;

use plotters::coord::Shift;
use plotters::coord::combinators::WithKeyPoints;
use plotters::coord::types::RangedCoordi32;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(super) use intervals::{Ratio, intervals, reach};
pub(super) use memory::{Phase, phases};

use crate::record::{CellRecord, PeaksRecord, SteadyState};
use crate::stats::{Classification, Sample};

const WIDTH: u32 = 900;
const BLUE: RGBColor = RGBColor(0x2f, 0x7d, 0xd1);
const ORANGE: RGBColor = RGBColor(0xe0, 0x7b, 0x20);
const GREEN: RGBColor = RGBColor(0x2e, 0x9e, 0x5b);
const GREY: RGBColor = RGBColor(0x8a, 0x8f, 0x98);
/// Of axes in charts so low that a share of their height is too small to read.
const LETTERS: (&str, i32) = ("sans-serif", 12);
/// Width of a letter of a cell's name, with some room.
const LETTER: u32 = 7;
const NS_PER_MS: f64 = 1e6;

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws on a canvas of this height; `None` if it cannot be drawn.
fn drawn(height: u32, draw: impl FnOnce(&Canvas) -> Drawn) -> Option<String> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&canvas).and_then(|()| Ok(canvas.present()?)).ok()?;
    }
    // Black is what plotters draws lines and letters in.
    let svg = svg.replace("#000000", "currentColor");
    let size = format!("width=\"{WIDTH}\" height=\"{height}\" ");
    Some(svg.replacen(&size, "role=\"img\" ", 1))
}

/// Height of a row on an axis of rows; plotters labels whole numbers in words alone.
const ROW: i32 = 100;

/// An axis of rows.
fn rows_axis(rows: usize) -> WithKeyPoints<RangedCoordi32> {
    (-ROW / 2..middle(0, rows) + ROW / 2).with_key_points((0..rows).map(|row| middle(row, rows)).collect())
}

/// Where a row has its middle; the first is on top.
fn middle(row: usize, rows: usize) -> i32 {
    (rows - 1 - row) as i32 * ROW
}

/// The row whose middle is here.
fn row_at(place: i32, rows: usize) -> usize {
    rows - 1 - (place / ROW) as usize
}

/// Round numbers of an axis: 1, 2 and 5 of every power of ten on a long one, steps of such a number on a short one.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let nice = |from: f64| {
        let powers = from.log10().floor() as i32..=high.log10().ceil() as i32;
        powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
    };
    if high / low >= 5.0 {
        return nice(low).filter(|tick| *tick >= low && *tick <= high).collect();
    }
    let least = (high - low) / 8.0;
    let step = nice(least).find(|step| *step >= least).unwrap_or(high);
    let (first, last) = ((low / step).ceil() as i32, (high / step).floor() as i32);
    (first..=last).map(|count| f64::from(count) * step).collect()
}

/// Writes to the right of a chart, beside this place of its edge.
fn beside(canvas: &Canvas, (x, y): (i32, i32), text: String) -> Drawn {
    let style = TextStyle::from(LETTERS.into_font()).pos(Pos::new(HPos::Left, VPos::Center));
    Ok(canvas.draw(&Text::new(text, (x + 12, y), style))?)
}

/// A tick's number, without what binary fractions add to it.
fn digits(tick: f64) -> String {
    ((tick * 1e6).round() / 1e6).to_string()
}

/// The median of times that a results file holds, so that there is at least one and all are finite.
fn median(samples: &[f64]) -> f64 {
    Sample::new(samples.to_vec()).map_or(0.0, |sample| sample.median())
}

/// A row of dots for each cell, the first on top, a dot a sample, its median marked.
pub(super) fn strips(cells: &[(String, Vec<f64>)]) -> Option<String> {
    let most = cells.iter().flat_map(|(_, samples)| samples).copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let rows = cells.len();
    let longest = cells.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) as u32;
    drawn(70 + 34 * rows as u32, |canvas| {
        let mut chart = ChartBuilder::on(canvas)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(longest * LETTER)
            .build_cartesian_2d(0.0..most * 1.05, rows_axis(rows))?;
        let label = |place: &i32| cells[row_at(*place, rows)].0.clone();
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .y_label_formatter(&label)
            .x_desc("ms")
            .draw()?;
        for (row, (_, samples)) in cells.iter().enumerate() {
            // Spread over the row in the order they were taken.
            let middle = middle(row, rows);
            let height = |index: usize| middle + ((index as f64 / samples.len() as f64 - 0.5) * 60.0) as i32;
            chart.draw_series(
                samples.iter().enumerate().map(|(i, x)| Circle::new((*x, height(i)), 2, BLUE.mix(0.5).filled())),
            )?;
            let median = median(samples);
            let ends = [(median, middle - 40), (median, middle + 40)];
            chart.draw_series([PathElement::new(ends, ORANGE.stroke_width(2))])?;
        }
        Ok(())
    })
}

/// Warm-up and samples of each workload of a cell in the order they ran; steps that tuning or compiling overlaps with
/// are marked, and the steps of the steady state are shaded.
pub(super) fn warmup(cell: &CellRecord) -> Vec<(String, String)> {
    let spans: Vec<(u64, u64)> = cell
        .tuning
        .iter()
        .flat_map(|ledger| {
            let tuned = ledger.events.tuned.iter().map(|key| (key.at_ns, key.at_ns + key.wall_ns));
            tuned.chain(ledger.events.compiled.iter().map(|kernel| (kernel.at_ns, kernel.at_ns + kernel.wall_ns)))
        })
        .collect();
    let mut curves = Vec::new();
    for seen in cell.workloads().first_rounds() {
        let times: Vec<f64> = seen.warmup_ns.iter().chain(&seen.samples_ns).map(|ns| *ns as f64 / NS_PER_MS).collect();
        let begins = seen.warmup_at_ns.iter().chain(&seen.samples_at_ns);
        let touched: Vec<bool> = begins
            .zip(&times)
            .map(|(at, ms)| {
                let end = at + (ms * NS_PER_MS) as u64;
                spans.iter().any(|(from, to)| from < &end && to > at)
            })
            .collect();
        let positive = times.iter().copied().filter(|ms| *ms > 0.0);
        let (least, most) = positive.fold((f64::INFINITY, 0.0_f64), |(least, most), ms| (least.min(ms), most.max(ms)));
        if most == 0.0 {
            continue;
        }
        let (low, high) = (least * 0.9, most * 1.15);
        let course = SteadyState::of(std::slice::from_ref(seen)).rounds[0];
        let steady = course.filter(|course| course.classification != Classification::NoSteadyState);
        let svg = drawn(260, |canvas| {
            let mut chart =
                ChartBuilder::on(canvas).margin(8).x_label_area_size(36).y_label_area_size(70).build_cartesian_2d(
                    0.0..times.len() as f64,
                    (low..high).log_scale().with_key_points(ticks(low, high)),
                )?;
            chart
                .configure_mesh()
                .light_line_style(TRANSPARENT)
                .x_label_formatter(&|step| digits(*step))
                .y_label_formatter(&|ms| digits(*ms))
                .x_desc("step, warm-up first")
                .y_desc("ms")
                .draw()?;
            if let Some(course) = steady {
                let corners = [(course.from_step as f64, low), (times.len() as f64, high)];
                chart.draw_series([Rectangle::new(corners, GREEN.mix(0.15).filled())])?;
            }
            let points = || times.iter().enumerate().map(|(step, ms)| (step as f64 + 0.5, ms.max(least)));
            chart.draw_series(LineSeries::new(points(), BLUE.mix(0.6)))?;
            let begin = seen.warmup_ns.len() as f64;
            chart.draw_series([PathElement::new([(begin, low), (begin, high)], BLACK.mix(0.4))])?;
            chart.draw_series(points().zip(touched.iter().chain(std::iter::repeat(&false))).map(
                |(point, touched)| {
                    let color = if *touched { ORANGE } else { BLUE };
                    Circle::new(point, if *touched { 4 } else { 2 }, color.filled())
                },
            ))?;
            Ok(())
        });
        let begins = match (course, steady) {
            (None, _) => "too few steps to look for a steady state".to_owned(),
            (_, None) => "no steady state was reached".to_owned(),
            (_, Some(course)) => {
                format!("steady (green) from step {}, {}", course.from_step + 1, course.classification)
            }
        };
        let tuned = if touched.contains(&true) { "; orange: tuning or compiling" } else { "" };
        curves.extend(svg.map(|svg| (format!("{}: {begins}{tuned}", seen.workload), svg)));
    }
    curves
}

/// Median gap to each later token of a generation, by position.
pub(super) fn positions(cell: &CellRecord) -> Option<String> {
    let record = cell.workloads().generation.as_ref()?;
    let rows: Vec<&Vec<u64>> = record
        .rounds
        .iter()
        .filter_map(|seen| seen.generation.as_ref())
        .flat_map(|series| &series.per_token_ns)
        .collect();
    let count = rows.iter().map(|row| row.len()).min()?;
    let at = |position: usize| median(&rows.iter().map(|row| row[position] as f64 / NS_PER_MS).collect::<Vec<f64>>());
    let gaps: Vec<(f64, f64)> = (0..count).map(|position| (position as f64 + 1.0, at(position))).collect();
    let most = gaps.iter().map(|(_, ms)| *ms).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    drawn(240, |canvas| {
        let mut chart = ChartBuilder::on(canvas)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..count as f64 + 1.0, 0.0..most * 1.1)?;
        chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("tokens after the first").y_desc("ms").draw()?;
        chart.draw_series(LineSeries::new(gaps.iter().copied(), BLUE.stroke_width(2)))?;
        Ok(())
    })
}

/// The roofs of a device, and a mark for each `(name, FLOP/byte, FLOP/s)` under them, numbered; both axes logarithmic.
pub(super) fn roofline(peaks: &PeaksRecord, marks: &[(String, f64, f64)]) -> Option<String> {
    let (flops, bytes) = (peaks.flops.value?, peaks.bytes.value?);
    let ridge = flops / bytes;
    let all = || marks.iter().map(|(_, intensity, _)| *intensity).chain([ridge]);
    let (left, right) = (all().fold(f64::INFINITY, f64::min) / 4.0, all().fold(0.0, f64::max) * 4.0);
    let rates = || marks.iter().map(|(.., rate)| rate / 1e9).chain([flops / 1e9, left * bytes / 1e9]);
    let (low, high) = (rates().fold(f64::INFINITY, f64::min) / 2.0, rates().fold(0.0, f64::max) * 2.0);
    if marks.is_empty() || !(low > 0.0 && left > 0.0) {
        return None;
    }
    drawn(380 + 18 * marks.len() as u32, |canvas| {
        let (upper, lower) = canvas.split_vertically(370);
        let mut chart = ChartBuilder::on(&upper)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(70)
            .build_cartesian_2d((left..right).log_scale(), (low..high).log_scale())?;
        chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("FLOP/byte").y_desc("GFLOP/s").draw()?;
        let roofs = [(left, left * bytes / 1e9), (ridge, flops / 1e9), (right, flops / 1e9)];
        chart.draw_series(LineSeries::new(roofs, ORANGE.stroke_width(2)))?;
        for (index, (name, intensity, rate)) in marks.iter().enumerate() {
            let (at, number) = ((*intensity, rate / 1e9), (index + 1).to_string());
            chart.draw_series([Circle::new(at, 4, BLUE.filled())])?;
            chart.draw_series([Text::new(number.clone(), at, ("sans-serif", 13).into_font())])?;
            let place = (78, 4 + 18 * index as i32);
            lower.draw(&Text::new(format!("{number}  {name}"), place, ("sans-serif", 13).into_font()))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::{observations, planned, record};
    use crate::spec::Observation;

    #[test]
    fn the_curve_shows_where_the_steady_state_begins() {
        let curve = |times: &[u64]| {
            let seen = Observation {
                warmup_ns: times[..5].to_vec(),
                samples_ns: times[5..].to_vec(),
                ..observations(30, 100).remove(0)
            };
            warmup(&record(&planned(), 0, vec![seen], None)).remove(0)
        };
        let shaded = format!("opacity=\"0.15\" fill=\"#{:02X}{:02X}{:02X}\"", GREEN.0, GREEN.1, GREEN.2);
        let step = |ms: u64, step: usize| ms * 1_000_000 + step as u64 % 2 * 1000;
        let (caption, svg) = curve(&(0..40).map(|i| step(if i < 3 { 30 } else { 10 }, i)).collect::<Vec<_>>());
        assert_eq!(caption, "training: steady (green) from step 4, warm-up");
        assert_eq!(svg.matches(&shaded).count(), 1, "{svg}");
        let (caption, svg) = curve(&(0..40).map(|i| step(if i < 32 { 30 } else { 10 }, i)).collect::<Vec<_>>());
        assert_eq!(caption, "training: no steady state was reached");
        assert!(!svg.contains(&shaded), "{svg}");
        assert!(curve(&[10, 11, 10, 11, 10, 11]).0.contains("too few steps"));
    }

    #[test]
    fn ticks_are_round_and_enough() {
        let shown = |low, high| ticks(low, high).into_iter().map(digits).collect::<Vec<String>>().join(" ");
        assert_eq!(shown(0.9, 2.1), "1 1.2 1.4 1.6 1.8 2");
        assert_eq!(shown(0.3, 60.0), "0.5 1 2 5 10 20 50");
        assert_eq!(shown(0.97, 1.02), "0.97 0.98 0.99 1 1.01 1.02");
        assert_eq!(shown(195.0, 260.0), "200 210 220 230 240 250 260");
    }
}
