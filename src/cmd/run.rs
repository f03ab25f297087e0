use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::agreement::{self, SharedReferences};
use super::caches::Caches;
use super::executor::Children;
use super::kept_peaks::PeaksCache;
use super::output::{live_mode, pretty, print, save};
use super::{CommandError, planned};
use crate::backends;
use crate::cli::{OutputArgs, RunArgs};
use crate::config::{self, Experiment};
use crate::model::Registry;
use crate::plan::Plan;
use crate::record::{CellRecord, Environment, GatePolicy, Results, Setup, store};
use crate::report::Style;
use crate::report::console::summary;
use crate::report::live::Live;
use crate::runner::{Executor, StopFlag};
use crate::spec::{CellSpec, FailureKind, Job};

/// `burnmark` and `burnmark run`: verify, measure, report.
pub(crate) fn run(arguments: &RunArgs, registry: &Registry) -> Result<ExitCode, CommandError> {
    let (file, print_as) = (arguments.experiment.config.as_deref(), arguments.print);
    let experiment = config::load(file, &arguments.experiment.flags())?.experiment;
    let plan = planned(&experiment, registry)?;
    store::check_writable(&experiment.output)?;
    let mut results = Results::new(setup(&experiment, &plan));
    let mut live = Live::new(live_mode(print_as), plan.cells.len() * experiment.rounds);
    if arguments.resume && experiment.output.exists() {
        let kept = results.take_over(&store::read(&experiment.output)?);
        live.message(&format!("resuming: {kept} of {} cells are there already", plan.cells.len()));
    }
    if print_as.verbose {
        live.message(&versions(&results.environment));
    }
    let stop = StopFlag::install()?;
    let executor = Children::new(&experiment.limits, stop.clone(), print_as.verbose)?;
    let (rounds, seed, caches) = (experiment.rounds, experiment.seed, Caches::new()?);
    let run = Run { executor: &executor, stop, output: &experiment.output, caches, rounds, seed };
    let saved = run.gates(&plan, &mut results, &mut live)?
        && run.cells(&plan, &mut results, &mut live)
        && run.peaks(&mut results, &mut live);
    live.finish();
    report(&results, print_as)?;
    Ok(if run.stop.is_set() {
        ExitCode::from(130)
    } else if !saved {
        ExitCode::FAILURE
    } else {
        verdict(&results)
    })
}

/// What carries a run.
struct Run<'a> {
    executor: &'a dyn Executor,
    stop: StopFlag,
    output: &'a Path,
    caches: Caches,
    rounds: usize,
    seed: u64,
}

impl Run<'_> {
    /// Runs every gate; false if the results could not be kept.
    fn gates(&self, plan: &Plan, results: &mut Results, live: &mut Live) -> Result<bool, CommandError> {
        let shared = SharedReferences::new(&plan.gates)?;
        Ok(shared.gates().all(|gate| {
            let label = format!("verify {}", gate.backend);
            live.message(&format!("{label}: {}", gate.variants.join(", ")));
            let job = Job::Verify { gate: gate.clone(), cache: Some(self.caches.kept().to_owned()) };
            let done = self.executor.execute(&job, &mut |event| live.event(&label, event));
            results.finish_gate(agreement::record(gate, done));
            save(self.output, results) && !self.stop.is_set()
        }))
    }

    /// Runs every round of every cell that is not there yet; false if the results could not be kept. The cells of a round
    /// run in an order of its own, so that no cell always follows the same other one.
    fn cells(&self, plan: &Plan, results: &mut Results, live: &mut Live) -> bool {
        for round in 1..=self.rounds {
            let mut cells: Vec<&CellSpec> = plan.cells.iter().collect();
            if round > 1 {
                cells.shuffle(&mut StdRng::seed_from_u64(self.seed.wrapping_add(round as u64)));
            }
            for cell in cells {
                if !self.cell(cell, round, results, live) {
                    return false;
                }
                if self.stop.is_set() {
                    return true;
                }
            }
        }
        true
    }

    /// Runs one round of a cell, unless it is there already or an earlier one failed.
    fn cell(&self, cell: &CellSpec, round: usize, results: &mut Results, live: &mut Live) -> bool {
        let label = if self.rounds > 1 { format!("{} round {round}", cell.label()) } else { cell.label() };
        live.cell_started(&label);
        if results.completed(&cell.id(), round).is_some() {
            live.cell_finished(&label, true, "kept");
            return true;
        }
        let earlier = if round > 1 { results.completed(&cell.id(), round - 1).cloned() } else { None };
        if round > 1 && earlier.is_none() {
            live.cell_finished(&label, false, "an earlier round failed");
            return true;
        }
        if let Some(filling) = self.caches.filling(cell) {
            live.message(&format!("{label}: filling its tuning cache"));
            self.executor.execute(&filling, &mut |event| live.event(&label, event));
        }
        let job = Job::Measure { cell: cell.clone(), cache: Some(self.caches.of(cell)), once: false };
        let done = self.executor.execute(&job, &mut |event| live.event(&label, event));
        let interrupted = done.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Interrupted);
        if interrupted && earlier.is_some() {
            // The rounds before stay complete; `--resume` measures this one.
            live.cell_finished(&label, false, "stopped by the user");
            return true;
        }
        let record = match earlier {
            Some(earlier) => earlier.with_round(done),
            None => CellRecord::new(cell.clone(), done),
        };
        let detail = record.failure().map_or_else(String::new, ToString::to_string);
        live.cell_finished(&label, record.failure().is_none(), &detail);
        results.finish_cell(record);
        save(self.output, results)
    }

    /// Adds the peaks of every device that cells ran on; false if the results could not be kept.
    fn peaks(&self, results: &mut Results, live: &mut Live) -> bool {
        let cache = PeaksCache::new(self.executor);
        while let Some(wanted) = results.wanted_peaks() {
            if self.stop.is_set() {
                return true;
            }
            live.message(&format!("peaks of {}, {}, {}", wanted.backend, wanted.mode, wanted.precision));
            results.add_peaks(cache.found(wanted, false).peaks);
            if !save(self.output, results) {
                return false;
            }
        }
        true
    }
}

fn setup(experiment: &Experiment, plan: &Plan) -> Setup {
    Setup {
        command: std::env::args().collect(),
        environment: Environment::read(backends::features()),
        experiment: serde_json::to_value(experiment).expect("an experiment serialises"),
        plan: plan.cells.clone(),
        pairs: plan.pairs.iter().map(|pair| (pair.baseline, pair.candidate)).collect(),
        gate_policy: if experiment.verify.enabled { GatePolicy::Required } else { GatePolicy::Disabled },
    }
}

fn versions(environment: &Environment) -> String {
    let known = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "unknown".to_owned());
    format!(
        "burnmark {}, burn {}, {}, {} profile, features: {}; {} x {}",
        environment.versions.burnmark,
        known(&environment.versions.burn),
        known(&environment.rustc),
        known(&environment.profile),
        environment.features.join(", "),
        environment.available_threads.map_or_else(|| "?".to_owned(), |threads| threads.to_string()),
        known(&environment.cpu),
    )
}

fn report(results: &Results, print_as: OutputArgs) -> Result<(), CommandError> {
    if print_as.json {
        print(&pretty(results))?;
    } else if !print_as.quiet {
        let color =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        print(&summary(results, Style { color }))?;
    }
    Ok(())
}

fn verdict(results: &Results) -> ExitCode {
    if results.gates.iter().any(|gate| !gate.passed()) {
        ExitCode::from(3)
    } else if results.cells.iter().any(|cell| cell.failure().is_some()) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
