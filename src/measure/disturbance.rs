//! Looks between samples whether something else disturbed them, one window of time after the other.

use burnmark_backend_api::CardState;

use super::StepTimes;
use super::sensors::{Sensors, State};
use crate::spec::{CardReading, Disturbance, Reading};

/// A window is looked at once it is so long: ticks of processor time are 10 ms.
const WINDOW_NS: u64 = 250_000_000;

/// The last one may be shorter.
const LAST_WINDOW_NS: u64 = 100_000_000;

/// Largest share of the processors' time that others may use.
const OTHERS: f64 = 0.1;

/// Watches over a workload's samples.
pub(super) struct Watch<'a> {
    sensors: &'a dyn Sensors,
    /// Samples that may still be taken again.
    redoable: usize,
    /// The present window: when it began, in which state, and with which sample.
    at_ns: u64,
    state: State,
    first: usize,
    /// The windows that were disturbed.
    pub disturbances: Reading<Vec<Disturbance>>,
    /// The card at each window's ends.
    pub card: Reading<Vec<CardReading>>,
}

impl<'a> Watch<'a> {
    /// Begins the first window, before the first sample; at most `redoable` samples are to be taken again.
    pub fn new(sensors: &'a dyn Sensors, redoable: usize) -> Self {
        let (at_ns, state) = (sensors.now_ns(), sensors.read());
        let card = if state.card.is_some() {
            Reading::Read(Vec::new())
        } else {
            Reading::missing("the backend reads no graphics card")
        };
        let disturbances = Reading::missing(if state.is_blind() {
            "neither the load of the processors nor a graphics card can be read here"
        } else {
            "the samples took less than 100 ms, which is too short to tell"
        });
        let mut watch = Self { sensors, redoable, at_ns, state, first: 0, disturbances, card };
        watch.note_card();
        watch
    }

    /// Between two samples, or after the last: ends the window if it is long enough. If it was disturbed, and `redo` says
    /// so, its samples are thrown out; returns whether they were.
    pub fn look(&mut self, samples: &mut Vec<StepTimes>, last: bool, redo: bool) -> bool {
        let until_ns = self.sensors.now_ns();
        let wall_ns = until_ns - self.at_ns;
        if wall_ns < if last { LAST_WINDOW_NS } else { WINDOW_NS } || self.state.is_blind() {
            return false;
        }
        let state = self.sensors.read();
        let causes = causes(&self.state, &state, wall_ns);
        let samples_ns: Vec<u64> = samples[self.first..].iter().map(|sample| sample.span.total_ns).collect();
        let redone = redo && !causes.is_empty() && samples_ns.len() <= self.redoable;
        if redone {
            self.redoable -= samples_ns.len();
            samples.truncate(self.first);
        }
        let disturbance = Disturbance { at_ns: self.at_ns, until_ns, causes, samples_ns, redone };
        let seen = std::iter::once(disturbance).filter(|seen| !seen.causes.is_empty());
        match &mut self.disturbances {
            Reading::Read(all) => all.extend(seen),
            missing @ Reading::Missing { .. } => *missing = Reading::Read(seen.collect()),
        }
        (self.at_ns, self.state, self.first) = (until_ns, state, samples.len());
        self.note_card();
        redone
    }

    fn note_card(&mut self) {
        match (&self.state.card, &mut self.card) {
            (Some(Ok(state)), Reading::Read(all)) => all.push(CardReading { at_ns: self.at_ns, state: state.clone() }),
            (Some(Err(why)), card) => *card = Reading::missing(why),
            _ => {}
        }
    }
}

impl State {
    /// Whether nothing can be told from it.
    fn is_blind(&self) -> bool {
        self.load.is_none() && !matches!(self.card, Some(Ok(_)))
    }
}

/// What disturbed a window of `wall_ns` with these states at its ends, in words.
fn causes(before: &State, after: &State, wall_ns: u64) -> Vec<String> {
    let others = before.load.zip(after.load).map(|(before, after)| before.others(&after, wall_ns));
    let others = others.filter(|share| *share > OTHERS);
    let throttled = after.throttled.checked_sub(before.throttled).filter(|times| *times > 0);
    let mut causes: Vec<String> = others
        .map(|share| format!("other programs used {:.0} % of the processors", share * 100.0))
        .into_iter()
        .chain(throttled.map(|times| format!("heat throttled the processors (count {times})")))
        .collect();
    if let Some(Ok(card)) = &after.card {
        causes.extend(card_causes(card));
    }
    causes
}

fn card_causes(card: &CardState) -> impl Iterator<Item = String> {
    let shared = (card.processes > 1).then(|| format!("{} processes computed on the graphics card", card.processes));
    let slow = card.slowdowns.iter().map(|slowdown| {
        format!("{slowdown} of the graphics card at {} °C and {} MHz", card.temperature_c, card.sm_clock_mhz)
    });
    slow.chain(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Measured;
    use crate::measure::testing::{STEP_MS, Scripted, sampled, took};
    use crate::spec::{Ending, Stopping};

    /// So many samples without warm-up, each of which takes its number in nanoseconds.
    fn measured(count: usize, sensors: &Scripted) -> Measured {
        stopped(&Stopping::default(), count, sensors)
    }

    fn stopped(stopping: &Stopping, count: usize, sensors: &Scripted) -> Measured {
        sampled([0, count], stopping, sensors, &mut |_| {}, took)
    }

    fn times(samples: &[StepTimes]) -> Vec<u64> {
        samples.iter().map(|sample| sample.span.total_ns).collect()
    }

    fn seen(measured: &Measured) -> Vec<(Vec<u64>, bool)> {
        let all = measured.disturbances.value().expect("it was looked");
        all.iter().map(|seen| (seen.samples_ns.clone(), seen.redone)).collect()
    }

    fn reason<T>(reading: Reading<T>) -> String {
        match reading {
            Reading::Read(_) => String::new(),
            Reading::Missing { reason } => reason,
        }
    }

    #[test]
    fn a_quiet_machine_disturbs_nothing() {
        let measured = measured(25, &Scripted::quiet());
        assert_eq!((measured.samples.len(), measured.disturbances), (25, Reading::Read(Vec::new())));
        insta::assert_snapshot!(reason(measured.card), @"the backend reads no graphics card");
    }

    #[test]
    fn a_disturbed_window_is_taken_again_at_the_end() {
        let measured = measured(25, &Scripted::busy(350..400));
        assert_eq!(times(&measured.samples), (1..=5).chain(11..=30).collect::<Vec<u64>>());
        let disturbance = Disturbance {
            at_ns: 250_000_000,
            until_ns: 500_000_000,
            causes: vec!["other programs used 12 % of the processors".to_owned()],
            samples_ns: (6..=10).collect(),
            redone: true,
        };
        assert_eq!(measured.disturbances, Reading::Read(vec![disturbance]));
        assert!(measured.samples.iter().all(|sample| sample.at_ns == (sample.span.total_ns - 1) * STEP_MS * 1_000_000));
    }

    #[test]
    fn no_more_samples_are_taken_again_than_were_asked_for() {
        let measured = measured(12, &Scripted::busy(0..u64::MAX));
        assert_eq!(times(&measured.samples), (11..=20).chain(23..=24).collect::<Vec<u64>>());
        let windows =
            [(1..=5, true), (6..=10, true), (11..=15, false), (16..=20, false), (21..=22, true), (23..=24, false)];
        assert_eq!(seen(&measured), windows.map(|(samples, redone)| (samples.collect(), redone)));
    }

    #[test]
    fn the_last_window_is_judged_from_100_ms_on() {
        assert_eq!(seen(&measured(7, &Scripted::busy(250..350))), [(vec![6, 7], true)]);
        assert_eq!(seen(&measured(6, &Scripted::busy(250..300))), []);
        let short = measured(1, &Scripted::busy(0..50));
        insta::assert_snapshot!(reason(short.disturbances), @"the samples took less than 100 ms, which is too short to tell");
    }

    #[test]
    fn stopping_goes_by_the_samples_that_remain() {
        let narrow = Stopping { half_width_percent: Some(1.0), max_seconds: None };
        let run = |sensors: &Scripted, odd: std::ops::RangeInclusive<u64>| {
            let step = |number| took(if odd.contains(&number) { 5000 } else { 1000 + number % 2 });
            let measured = sampled([0, 100], &narrow, sensors, &mut |_| {}, step);
            (
                measured.samples.len(),
                measured.ended_by,
                measured.samples.iter().all(|sample| sample.span.total_ns < 5000),
            )
        };
        assert_eq!(run(&Scripted::busy(250..500), 6..=10), (20, Ending::NarrowEnough, true));
        // The window that ends with the sample at which the interval is narrow enough is itself disturbed.
        assert_eq!(run(&Scripted::busy(750..1000), 0..=0), (30, Ending::NarrowEnough, true));
    }

    #[test]
    fn there_is_no_time_to_take_samples_again_once_it_is_up() {
        let stopping = Stopping { half_width_percent: None, max_seconds: Some(0.4) };
        let measured = stopped(&stopping, 100, &Scripted::busy(0..u64::MAX));
        assert_eq!((times(&measured.samples), measured.ended_by), (vec![6, 7, 8], Ending::Time));
        assert_eq!(seen(&measured), [(vec![1, 2, 3, 4, 5], true), (vec![6, 7, 8], false)]);
    }

    #[test]
    fn heat_and_other_processes_disturb_a_card_and_its_power_cap_does_not() {
        let card = |slowdowns: &[&str], processes| CardState {
            sm_clock_mhz: 1200,
            temperature_c: 88,
            power_w: Some(700),
            limits: vec!["software power cap".to_owned()],
            slowdowns: slowdowns.iter().map(|&slowdown| slowdown.to_owned()).collect(),
            processes,
        };
        let run = |card| measured(10, &Scripted { card: Some(card), ..Scripted::default() });
        let capped = run(Ok(card(&[], 1)));
        assert_eq!(seen(&capped), []);
        let readings = capped.card.value().expect("it was read").iter();
        assert_eq!(readings.map(|reading| reading.at_ns / 1_000_000).collect::<Vec<_>>(), [0, 250, 500]);
        let hot = run(Ok(card(&["software thermal slowdown"], 3))).disturbances;
        insta::assert_snapshot!(hot.value().expect("it was looked")[0].causes.join("\n"), @r"
        software thermal slowdown of the graphics card at 88 °C and 1200 MHz
        3 processes computed on the graphics card
        ");
        let lost = run(Err("the card is lost".to_owned()));
        insta::assert_snapshot!(reason(lost.disturbances) + "\n" + &reason(lost.card), @r"
        neither the load of the processors nor a graphics card can be read here
        the card is lost
        ");
    }

    #[test]
    fn throttled_processors_are_a_disturbance() {
        let state = |throttled| State { throttled, ..State::default() };
        insta::assert_snapshot!(causes(&state(7), &state(10), 1).concat(), @"heat throttled the processors (count 3)");
        assert!(causes(&state(7), &state(7), 1).is_empty());
    }
}
