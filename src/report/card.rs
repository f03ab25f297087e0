//! What graphics cards told while samples were taken.

use super::tables::Table;
use super::warnings::workloads;
use crate::record::Results;
use crate::spec::CardReading;

/// The graphics card of every cell and workload, where it was read.
pub(super) fn table(results: &Results) -> Table {
    let mut rows = Vec::new();
    for cell in &results.cells {
        for (workload, rounds) in workloads(cell) {
            let readings: Vec<&CardReading> = rounds.iter().filter_map(|round| round.card.value()).flatten().collect();
            if !readings.is_empty() {
                rows.push([vec![cell.spec.label(), workload.to_string()], row(&readings)].concat());
            }
        }
    }
    Table {
        caption: "The graphics card while samples were taken, read about four times a second".to_owned(),
        header: ["cell", "", "clock", "hottest", "power", "held down by"].map(str::to_owned).to_vec(),
        rows,
    }
}

fn row(readings: &[&CardReading]) -> Vec<String> {
    let states = || readings.iter().map(|reading| &reading.state);
    let range = |unit: &str, figures: Vec<u32>| match (figures.iter().min(), figures.iter().max()) {
        (Some(low), Some(high)) if low < high => format!("{low} to {high} {unit}"),
        (_, Some(only)) => format!("{only} {unit}"),
        _ => "n/a".to_owned(),
    };
    let mut held_down: Vec<&str> =
        states().flat_map(|state| state.slowdowns.iter().chain(&state.limits)).map(String::as_str).collect();
    held_down.sort_unstable();
    held_down.dedup();
    vec![
        range("MHz", states().map(|state| state.sm_clock_mhz).collect()),
        range("°C", states().map(|state| state.temperature_c).max().into_iter().collect()),
        range("W", states().filter_map(|state| state.power_w).collect()),
        if held_down.is_empty() { "nothing".to_owned() } else { held_down.join(", ") },
    ]
}

#[cfg(test)]
mod tests {
    use burnmark_backend_api::CardState;

    use super::*;
    use crate::record::fixtures::{observations, planned, record};
    use crate::spec::{Observation, Reading};

    #[test]
    fn a_card_is_its_extremes_and_what_held_it_down() {
        let reading = |sm_clock_mhz, temperature_c, power_w, limits: &[&str]| CardReading {
            at_ns: 0,
            state: CardState {
                sm_clock_mhz,
                temperature_c,
                power_w,
                limits: limits.iter().map(|&limit| limit.to_owned()).collect(),
                ..CardState::default()
            },
        };
        let mut results = planned();
        assert!(table(&results).rows.is_empty());
        let mut observed = observations(30, 100);
        let with = |readings, observation: Observation| Observation { card: Reading::Read(readings), ..observation };
        observed[0] = with(
            vec![reading(1980, 41, Some(300), &[]), reading(1620, 63, Some(699), &["software power cap"])],
            observed[0].clone(),
        );
        observed[1] = with(vec![reading(1980, 50, None, &[])], observed[1].clone());
        let cell = record(&results, 0, observed, None);
        results.finish_cell(cell);
        let rows: Vec<String> = table(&results).rows.iter().map(|row| row.join(" | ")).collect();
        insta::assert_snapshot!(rows.join("\n"), @r"
        flex/default/default/f32/b2s512 | training | 1620 to 1980 MHz | 63 °C | 300 to 699 W | software power cap
        flex/default/default/f32/b2s512 | inference | 1980 MHz | 50 °C | n/a | nothing
        ");
    }
}
