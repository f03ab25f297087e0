//! Drawings of samples. Lines and letters take the page's own colour, so that they read in light and dark.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::record::{CellRecord, PeaksRecord};
use crate::stats::Sample;

const WIDTH: u32 = 900;
const BLUE: RGBColor = RGBColor(0x2f, 0x7d, 0xd1);
const ORANGE: RGBColor = RGBColor(0xe0, 0x7b, 0x20);
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
    drawn(70 + 34 * rows as u32, |canvas| {
        let mut chart = ChartBuilder::on(canvas)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(300)
            .build_cartesian_2d(0.0..most * 1.05, -0.5..rows as f64 - 0.5)?;
        let label = |row: &f64| {
            let index = row.round();
            let exact = (row - index).abs() < 1e-6 && index >= 0.0;
            cells.iter().rev().nth(index as usize).filter(|_| exact).map_or_else(String::new, |(name, _)| name.clone())
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(2 * rows + 1)
            .y_label_formatter(&label)
            .x_desc("ms")
            .draw()?;
        for (row, (_, samples)) in cells.iter().rev().enumerate() {
            // Spread over the row in the order they were taken.
            let height = |index: usize| row as f64 + (index as f64 / samples.len() as f64 - 0.5) * 0.6;
            chart.draw_series(
                samples.iter().enumerate().map(|(i, x)| Circle::new((*x, height(i)), 2, BLUE.mix(0.5).filled())),
            )?;
            let median = median(samples);
            let ends = [(median, row as f64 - 0.4), (median, row as f64 + 0.4)];
            chart.draw_series([PathElement::new(ends, ORANGE.stroke_width(2))])?;
        }
        Ok(())
    })
}

/// Warm-up and samples of each workload of a cell in the order they ran; steps that tuning or compiling overlaps with
/// are marked.
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
        let svg = drawn(260, |canvas| {
            let mut chart = ChartBuilder::on(canvas)
                .margin(8)
                .x_label_area_size(36)
                .y_label_area_size(70)
                .build_cartesian_2d(0.0..times.len() as f64, (least * 0.9..most * 1.1).log_scale())?;
            chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("step, warm-up first").y_desc("ms").draw()?;
            let points = || times.iter().enumerate().map(|(step, ms)| (step as f64 + 0.5, ms.max(least)));
            chart.draw_series(LineSeries::new(points(), BLUE.mix(0.6)))?;
            let begin = seen.warmup_ns.len() as f64;
            chart.draw_series([PathElement::new([(begin, least * 0.9), (begin, most * 1.1)], BLACK.mix(0.4))])?;
            chart.draw_series(points().zip(touched.iter().chain(std::iter::repeat(&false))).map(
                |(point, touched)| {
                    let color = if *touched { ORANGE } else { BLUE };
                    Circle::new(point, if *touched { 4 } else { 2 }, color.filled())
                },
            ))?;
            Ok(())
        });
        curves.extend(svg.map(|svg| (format!("{} (orange: tuning or compiling)", seen.workload), svg)));
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
