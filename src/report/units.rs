//! Numbers with their units, to as many digits as carry meaning.

use crate::stats::{RatioInterval, Verdict};

/// What stands where a figure is missing.
pub(super) const MISSING: &str = "n/a";

/// A figure, or [`MISSING`].
pub(super) fn or_missing(figure: Option<f64>, format: impl Fn(f64) -> String) -> String {
    figure.map_or_else(|| MISSING.to_owned(), format)
}

/// At least three significant digits, none behind the point from a hundred on.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A duration given in milliseconds, in the unit that suits it.
pub(super) fn time(ms: f64) -> String {
    match ms.abs() {
        0.0 => "0 ms".to_owned(),
        size if size >= 10_000.0 => format!("{} s", digits(ms / 1e3)),
        size if size < 0.1 => format!("{} µs", digits(ms * 1e3)),
        _ => format!("{} ms", digits(ms)),
    }
}

/// Memory in MB of 2^20 bytes.
pub(super) fn megabytes(mb: f64) -> String {
    format!("{} MB", digits(mb))
}

/// A ratio, such as `1.52x`.
pub(super) fn ratio(value: f64) -> String {
    format!("{value:.2}x")
}

/// A ratio with its interval, such as `1.52x [1.48, 1.56]`; a ratio whose interval holds 1 is marked with `~`.
pub(super) fn claim(value: f64, interval: Option<RatioInterval>) -> String {
    match interval {
        None => ratio(value),
        Some(interval) => format!("{} [{:.2}, {:.2}]", marked(value, Some(interval)), interval.low, interval.high),
    }
}

/// A ratio alone; one whose interval holds 1 is marked with `~`.
pub(super) fn marked(value: f64, interval: Option<RatioInterval>) -> String {
    let shown = interval.is_none_or(|interval| interval.verdict() != Verdict::NoDifferenceShown);
    if shown { ratio(value) } else { format!("~{}", ratio(value)) }
}

/// A share in percent, signed.
pub(super) fn percent(value: f64) -> String {
    format!("{value:+.1} %")
}

/// Something per second.
pub(super) fn rate(value: f64) -> String {
    if value >= 1e5 { format!("{} k/s", digits(value / 1e3)) } else { format!("{}/s", digits(value)) }
}
