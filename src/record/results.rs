use std::collections::HashMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gate::{Agreement, Verdict, agreements, judge};
use super::ladder::{LadderStep, ladder};
use super::roofline::rooflines;
use super::tuning::{break_evens, tuning_spreads};
use super::{
    BreakEven, CellOutcome, CellRecord, ClassicConfig, ClassicModel, Comparison, Environment, GatePolicy, GateRecord,
    PairRecord, PeaksRecord, Roofline, TuningSpread,
};
use crate::spec::{CellSpec, DeviceSpec};

/// Version of the results file. Files of an older one are lifted to it when they are read (`upgrade.rs`).
pub const SCHEMA_VERSION: u32 = 2;

const NO_PAIR: &str = "the plan compares no two cells";

/// What is known of a run before anything is measured.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The command line.
    pub command: Vec<String>,
    /// Where it runs.
    pub environment: Environment,
    /// The effective experiment.
    pub experiment: serde_json::Value,
    /// Every cell, in order; at least one.
    pub plan: Vec<CellSpec>,
    /// The comparisons, baseline first, as positions in `plan`; the first of them is the classic one.
    pub pairs: Vec<(usize, usize)>,
    /// Whether comparisons need a passed gate.
    pub gate_policy: GatePolicy,
}

/// The results file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Results {
    /// Version of this layout.
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// When the run began, RFC 3339 in UTC.
    pub timestamp: String,
    /// The command line.
    pub command: Vec<String>,
    /// Where it ran.
    pub environment: Environment,
    /// The effective experiment.
    pub experiment: serde_json::Value,
    /// Classic view: sizes and settings of the optimised model of the first pair, or of the first cell.
    pub config: ClassicConfig,
    /// Classic view: the baseline of the first pair, or the first cell if nothing is compared.
    pub default_model: ClassicModel,
    /// Classic view: the optimised model of the first pair.
    pub example_model: ClassicModel,
    /// Classic view: the first pair.
    pub comparison: Comparison,
    /// Whether comparisons need a passed gate.
    pub gate_policy: GatePolicy,
    /// The correctness gates that have been run.
    pub gates: Vec<GateRecord>,
    /// How far each cell's model computes from what it was held against.
    #[serde(default)]
    pub agreements: Vec<Agreement>,
    /// Every pair of the plan.
    pub comparisons: Vec<PairRecord>,
    /// What each optimisation earns alone and on top of all others, where the plan has the variants that tell.
    #[serde(default)]
    pub ladder: Vec<LadderStep>,
    /// When fusion and tuning have paid for themselves, for every cell whose `no-compile` twin was measured.
    #[serde(default)]
    pub break_evens: Vec<BreakEven>,
    /// How far tunings of repeated cold cells lie apart.
    #[serde(default)]
    pub tuning_spreads: Vec<TuningSpread>,
    /// What the devices can do at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peaks: Vec<PeaksRecord>,
    /// How near every workload of every cell comes to that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooflines: Vec<Roofline>,
    /// Every cell of the plan, run or not, in order.
    pub plan: Vec<CellSpec>,
    /// The cells that have been run, in the order of the plan.
    pub cells: Vec<CellRecord>,
}

impl Results {
    /// The results of a run in which nothing has been measured yet.
    ///
    /// # Panics
    /// If the plan is empty or a pair points outside it.
    pub fn new(setup: Setup) -> Self {
        let Setup { command, environment, experiment, plan, pairs, gate_policy } = setup;
        let classic = pairs.first().map_or(0, |&(_, candidate)| candidate);
        let mut results = Self {
            schema_version: SCHEMA_VERSION,
            timestamp: Timestamp::now().to_string(),
            command,
            environment,
            experiment,
            config: ClassicConfig::of(&plan[classic]),
            default_model: ClassicModel::of(&plan[0], None),
            example_model: ClassicModel::absent(NO_PAIR),
            comparison: Comparison::missing(NO_PAIR),
            gate_policy,
            gates: Vec::new(),
            comparisons: pairs.iter().map(|&(one, other)| PairRecord::of(&plan[one], &plan[other])).collect(),
            ladder: Vec::new(),
            agreements: Vec::new(),
            break_evens: Vec::new(),
            tuning_spreads: Vec::new(),
            peaks: Vec::new(),
            rooflines: Vec::new(),
            plan,
            cells: Vec::new(),
        };
        results.derive();
        results
    }

    /// Adds the outcome of a gate.
    pub fn finish_gate(&mut self, gate: GateRecord) {
        self.gates.push(gate);
        self.derive();
    }

    /// Adds the outcome of a cell, or replaces an earlier outcome of the same cell.
    pub fn finish_cell(&mut self, cell: CellRecord) {
        self.keep(cell);
        self.derive();
    }

    /// Adds the peaks of a device.
    pub fn add_peaks(&mut self, peaks: PeaksRecord) {
        self.peaks.push(peaks);
        self.derive();
    }

    /// The peaks, not measured yet, of a device that a cell ran on and whose peaks are not there.
    pub fn wanted_peaks(&self) -> Option<PeaksRecord> {
        let mut ran = self.cells.iter().filter(|cell| cell.failure().is_none()).filter_map(|cell| {
            let device = cell.device.as_ref()?;
            Some(PeaksRecord::unmeasured(DeviceSpec::of(&cell.spec), &device.name, &self.environment))
        });
        ran.find(|it| !self.peaks.iter().any(|known| known.same_device(it)))
    }

    /// Takes over every cell of this plan that an earlier run has measured; returns how many.
    pub fn take_over(&mut self, earlier: &Self) -> usize {
        let ids: Vec<String> = self.plan.iter().map(CellSpec::id).collect();
        let taken: Vec<&CellRecord> = ids.iter().filter_map(|id| earlier.completed(id, 1)).collect();
        let count = taken.len();
        for cell in taken {
            self.keep(cell.clone());
        }
        self.derive();
        count
    }

    /// The record of a cell that was measured completely, in at least this many rounds.
    pub fn completed(&self, id: &str, rounds: usize) -> Option<&CellRecord> {
        let complete =
            |cell: &&CellRecord| matches!(cell.outcome, CellOutcome::Measured { .. }) && cell.rounds >= rounds;
        self.cell(id).filter(complete)
    }

    /// The record of a cell, however it ended.
    pub fn cell(&self, id: &str) -> Option<&CellRecord> {
        self.cells.iter().find(|cell| cell.id == id)
    }

    fn keep(&mut self, cell: CellRecord) {
        self.cells.retain(|known| known.id != cell.id);
        self.cells.push(cell);
        let places: HashMap<String, usize> =
            self.plan.iter().enumerate().map(|(place, cell)| (cell.id(), place)).collect();
        self.cells.sort_by_key(|cell| places.get(&cell.id).copied().unwrap_or(usize::MAX));
    }

    /// Computes everything that follows from the cells and the gates.
    fn derive(&mut self) {
        self.agreements = agreements(&self.gates, &self.plan);
        self.break_evens = break_evens(&self.cells);
        self.tuning_spreads = tuning_spreads(&self.cells);
        self.rooflines = rooflines(&self.cells, &self.peaks);
        let planned: HashMap<String, &CellSpec> = self.plan.iter().map(|cell| (cell.id(), cell)).collect();
        let view = |id: &str| planned.get(id).map(|cell| (*cell, ClassicModel::of(cell, self.cell(id))));
        let compared = |pair: &PairRecord| {
            let (baseline, candidate) = (view(&pair.baseline)?, view(&pair.candidate)?);
            let unproven = [&pair.baseline, &pair.candidate].into_iter().find_map(|id| self.cell(id)?.unproven());
            let verdict = match unproven {
                Some(failure) => Verdict::Refused(failure.to_string()),
                None => judge(self.gate_policy, &self.gates, [baseline.0, candidate.0]),
            };
            let comparison = Comparison::between(&baseline.1, &candidate.1, verdict);
            let workloads = |id: &str| self.cell(id).map(CellRecord::workloads);
            let comparison = match (workloads(&pair.baseline), workloads(&pair.candidate)) {
                (Some(one), Some(other)) => comparison.with_intervals([one, other]),
                _ => comparison,
            };
            Some((baseline.1, candidate.1, PairRecord { comparison, ..pair.clone() }))
        };
        let views: Vec<_> = self.comparisons.iter().filter_map(compared).collect();
        let ladder =
            ladder(&self.plan).into_iter().map(|step| step.filled(|pair| compared(&pair).map(|(.., pair)| pair)));
        self.ladder = ladder.collect();
        self.comparisons = views.iter().map(|(.., pair)| pair.clone()).collect();
        let first = views.into_iter().next();
        if let Some((baseline, candidate, pair)) = first {
            (self.default_model, self.example_model, self.comparison) = (baseline, candidate, pair.comparison);
        } else if let Some(cell) = self.plan.first() {
            self.default_model = ClassicModel::of(cell, self.cell(&cell.id()));
        }
    }
}
