use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gate::Verdict;
use super::{ClassicModel, GenerationFigures, Memory, Metric, StepFigures, Times, WorkloadRecords};
use crate::spec::CellSpec;
use crate::stats::{RatioInterval, Verdict as Claim};

/// Training or inference of the optimised model against the baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepComparison {
    /// `baseline mean time / optimised mean time`.
    pub speedup: Option<f64>,
    /// Where the true speed-up lies, at 95 %; null for a single round, which tells nothing of other processes.
    #[serde(default)]
    pub speedup_interval: Option<RatioInterval>,
    /// What that allows to say.
    #[serde(default)]
    pub verdict: Option<Claim>,
    /// `(1 - optimised mean time / baseline mean time) * 100`.
    pub time_reduction_percent: Option<f64>,
    /// `baseline peak - optimised peak`, in MB of 2^20 bytes.
    pub memory_reduction_mb: Option<f64>,
    /// `(1 - optimised peak / baseline peak) * 100`.
    pub memory_reduction_percent: Option<f64>,
    /// Why figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl StepComparison {
    fn between(baseline: &StepFigures, optimised: &StepFigures) -> Self {
        let mut reasons = Reasons::default();
        let time = reasons.times("time", &baseline.wall_clock_time, &optimised.wall_clock_time);
        let memory = reasons.memory(&baseline.memory, &optimised.memory);
        Self {
            speedup: time.map(Pair::ratio),
            speedup_interval: None,
            verdict: None,
            time_reduction_percent: time.map(Pair::reduction_percent),
            memory_reduction_mb: memory.map(Pair::difference),
            memory_reduction_percent: memory.map(Pair::reduction_percent),
            reason: reasons.join(),
        }
    }

    fn missing(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::default() }
    }
}

/// Generation of the optimised model against the baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GenerationComparison {
    /// `baseline mean per-token latency / optimised mean per-token latency`.
    pub speedup: Option<f64>,
    /// Where the true speed-up lies, at 95 %; null for a single round.
    #[serde(default)]
    pub speedup_interval: Option<RatioInterval>,
    /// What that allows to say.
    #[serde(default)]
    pub verdict: Option<Claim>,
    /// `(1 - optimised mean per-token latency / baseline mean per-token latency) * 100`.
    pub latency_reduction_percent: Option<f64>,
    /// `baseline mean first-token latency / optimised mean first-token latency`.
    pub first_token_speedup: Option<f64>,
    /// Where the true one lies, at 95 %; null for a single round.
    #[serde(default)]
    pub first_token_interval: Option<RatioInterval>,
    /// What that allows to say.
    #[serde(default)]
    pub first_token_verdict: Option<Claim>,
    /// `baseline peak - optimised peak`, in MB of 2^20 bytes.
    pub memory_reduction_mb: Option<f64>,
    /// `(1 - optimised peak / baseline peak) * 100`.
    pub memory_reduction_percent: Option<f64>,
    /// Why figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl GenerationComparison {
    fn between(baseline: &GenerationFigures, optimised: &GenerationFigures) -> Self {
        let mut reasons = Reasons::default();
        let first = reasons.times("first token", &baseline.first_token_latency, &optimised.first_token_latency);
        let later = reasons.times("per token", &baseline.per_token_latency, &optimised.per_token_latency);
        let memory = reasons.memory(&baseline.memory, &optimised.memory);
        Self {
            speedup: later.map(Pair::ratio),
            speedup_interval: None,
            verdict: None,
            latency_reduction_percent: later.map(Pair::reduction_percent),
            first_token_speedup: first.map(Pair::ratio),
            first_token_interval: None,
            first_token_verdict: None,
            memory_reduction_mb: memory.map(Pair::difference),
            memory_reduction_percent: memory.map(Pair::reduction_percent),
            reason: reasons.join(),
        }
    }

    fn missing(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::default() }
    }
}

/// The optimised model against the baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Whether the correctness gate holds for both sides; if it does not, there are figures only if the user has
    /// disabled the gate.
    pub verified: bool,
    /// Why it is not verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Training.
    pub training: StepComparison,
    /// Inference.
    pub inference: StepComparison,
    /// Generation.
    pub generation: GenerationComparison,
}

impl Comparison {
    /// Compares what is there, if the verdict of the correctness gate allows it.
    pub(super) fn between(baseline: &ClassicModel, optimised: &ClassicModel, verdict: Verdict) -> Self {
        let (verified, reason) = match verdict {
            Verdict::Refused(reason) => return Self::missing(&reason),
            Verdict::Disabled => (false, Some("the correctness gate was disabled".to_owned())),
            Verdict::Verified => (true, None),
        };
        Self {
            verified,
            reason,
            training: StepComparison::between(&baseline.training, &optimised.training),
            inference: StepComparison::between(&baseline.inference, &optimised.inference),
            generation: GenerationComparison::between(&baseline.generation, &optimised.generation),
        }
    }

    /// The same, with the interval of every ratio that is there.
    pub(super) fn with_intervals(mut self, [baseline, optimised]: [&WorkloadRecords; 2]) -> Self {
        let interval = |metric: Metric, ratio: Option<f64>| {
            let interval = ratio.and_then(|_| RatioInterval::of(&metric.rounds(baseline), &metric.rounds(optimised)));
            (interval, interval.map(RatioInterval::verdict))
        };
        let (training, inference, generation) = (&mut self.training, &mut self.inference, &mut self.generation);
        (training.speedup_interval, training.verdict) = interval(Metric::Training, training.speedup);
        (inference.speedup_interval, inference.verdict) = interval(Metric::Inference, inference.speedup);
        (generation.speedup_interval, generation.verdict) = interval(Metric::PerToken, generation.speedup);
        (generation.first_token_interval, generation.first_token_verdict) =
            interval(Metric::FirstToken, generation.first_token_speedup);
        self
    }

    /// No figures, and why.
    pub(super) fn missing(reason: &str) -> Self {
        Self {
            verified: false,
            reason: Some(reason.to_owned()),
            training: StepComparison::missing(reason),
            inference: StepComparison::missing(reason),
            generation: GenerationComparison::missing(reason),
        }
    }
}

/// One pair of cells that the plan compares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairRecord {
    /// Id of the baseline's cell.
    pub baseline: String,
    /// Id of the optimised model's cell.
    pub candidate: String,
    /// Both cells in words.
    pub label: String,
    /// The figures.
    pub comparison: Comparison,
}

impl PairRecord {
    /// Two cells that have not been measured yet.
    pub(super) fn of(baseline: &CellSpec, candidate: &CellSpec) -> Self {
        Self {
            baseline: baseline.id(),
            candidate: candidate.id(),
            label: format!("{} against {}", candidate.label(), baseline.label()),
            comparison: Comparison::missing("not measured yet"),
        }
    }
}

/// Two positive figures, the baseline's and the optimised model's.
#[derive(Clone, Copy)]
struct Pair {
    baseline: f64,
    optimised: f64,
}

impl Pair {
    fn ratio(self) -> f64 {
        self.baseline / self.optimised
    }

    fn reduction_percent(self) -> f64 {
        (1.0 - self.optimised / self.baseline) * 100.0
    }

    fn difference(self) -> f64 {
        self.baseline - self.optimised
    }
}

/// Collects why figures cannot be compared, each reason once.
#[derive(Default)]
struct Reasons(Vec<String>);

impl Reasons {
    fn times(&mut self, what: &str, baseline: &Times, optimised: &Times) -> Option<Pair> {
        self.pair(
            what,
            (baseline.mean_ms, baseline.reason.as_deref()),
            (optimised.mean_ms, optimised.reason.as_deref()),
        )
    }

    fn memory(&mut self, baseline: &Memory, optimised: &Memory) -> Option<Pair> {
        let pair = self.pair(
            "memory",
            (baseline.peak_mb, baseline.reason.as_deref()),
            (optimised.peak_mb, optimised.reason.as_deref()),
        )?;
        if baseline.source == optimised.source {
            return Some(pair);
        }
        let name = |memory: &Memory| memory.source.clone().unwrap_or_default();
        self.add(format!("memory: read from {} here and {} there", name(baseline), name(optimised)));
        None
    }

    fn pair(
        &mut self,
        what: &str,
        baseline: (Option<f64>, Option<&str>),
        optimised: (Option<f64>, Option<&str>),
    ) -> Option<Pair> {
        for (side, (figure, reason)) in [("baseline", baseline), ("optimised", optimised)] {
            match figure {
                None => self.add(reason.map_or_else(|| format!("{side}: no figure"), str::to_owned)),
                Some(figure) if figure <= 0.0 => self.add(format!("{side}: {what} is zero")),
                Some(_) => {}
            }
        }
        let positive = |figure: Option<f64>| figure.filter(|figure| *figure > 0.0);
        Some(Pair { baseline: positive(baseline.0)?, optimised: positive(optimised.0)? })
    }

    fn add(&mut self, reason: String) {
        if !self.0.contains(&reason) {
            self.0.push(reason);
        }
    }

    fn join(self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}
