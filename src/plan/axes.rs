use super::{Available, Pair, PlanError};
use crate::config::{Exclude, Experiment, nearest};
use crate::spec::{
    CellSpec, GenerationSpec, Precision, StepSpec, Stopping, Tolerance, TrainingSpec, TuningCache, VerifySpec,
    Workloads,
};

/// Every backend burnmark knows, compiled in or not.
pub const KNOWN_BACKENDS: &[&str] = &["cuda", "metal", "vulkan", "wgpu", "flex", "tch", "pytorch"];

fn hint(name: &str, candidates: &[&str]) -> String {
    nearest(name, candidates.iter().copied()).map_or(String::new(), |near| format!("; did you mean `{near}`?"))
}

/// The experiment's backends, each checked; the best one if it names none.
pub(super) fn backends(experiment: &Experiment, available: &Available) -> Result<Vec<String>, PlanError> {
    let compiled = available.backends.join(", ");
    if experiment.axes.backends.is_empty() {
        return available.backends.first().map(|best| vec![best.clone()]).ok_or(PlanError::NoBackend);
    }
    for specification in &experiment.axes.backends {
        let name = backend_name(specification).to_owned();
        if available.backends.contains(&name) || available.external.contains(&name) {
            continue;
        }
        return Err(if KNOWN_BACKENDS.contains(&name.as_str()) {
            PlanError::NotCompiled { name, compiled }
        } else {
            PlanError::UnknownBackend { hint: hint(&name, KNOWN_BACKENDS), name, compiled }
        });
    }
    Ok(experiment.axes.backends.clone())
}

pub(super) fn check_variants(experiment: &Experiment, available: &Available) -> Result<(), PlanError> {
    let wanted = &experiment.model.family;
    let names: Vec<&str> = available.families.iter().map(|(name, _)| name.as_str()).collect();
    let Some((family, variants)) = available.families.iter().find(|(name, _)| name == wanted) else {
        return Err(PlanError::UnknownFamily {
            name: wanted.clone(),
            hint: hint(wanted, &names),
            known: names.join(", "),
        });
    };
    let names: Vec<&str> = variants.iter().map(String::as_str).collect();
    match experiment.axes.variants.iter().find(|variant| !variants.contains(variant)) {
        None => Ok(()),
        Some(unknown) => Err(PlanError::UnknownVariant {
            family: family.clone(),
            name: unknown.clone(),
            hint: hint(unknown, &names),
            known: names.join(", "),
        }),
    }
}

/// The experiment's variants, and those of a ladder: of every variant named, what the family has with one optimisation
/// more or less.
fn variants(experiment: &Experiment, available: &Available) -> Vec<String> {
    let mut variants = experiment.axes.variants.clone();
    let family = available.families.iter().find(|(name, _)| *name == experiment.model.family);
    for candidate in family.iter().flat_map(|(_, variants)| variants).filter(|_| experiment.axes.ladder) {
        let step = |whole: &String| {
            let rest = candidate.strip_prefix(whole.as_str());
            rest.is_some_and(|rest| rest.starts_with("-with-") || rest.starts_with("-without-"))
        };
        if experiment.axes.variants.iter().any(step) && !variants.contains(candidate) {
            variants.push(candidate.clone());
        }
    }
    variants
}

/// The experiment's precisions; if it names none, the one the first backend is made for: all cells have the same, so
/// that they compare.
fn precisions(experiment: &Experiment, available: &Available, backends: &[String]) -> Vec<Precision> {
    if !experiment.axes.precisions.is_empty() {
        return experiment.axes.precisions.clone();
    }
    let mixed = backends.first().is_some_and(|first| available.mixed.iter().any(|name| name == backend_name(first)));
    vec![if mixed { Precision::Mixed } else { Precision::F32 }]
}

/// The product of the axes less the exclusions; variants vary fastest. A backend that does not tune has no tuning cache:
/// of that axis it gets the first value alone.
pub(super) fn cells(
    experiment: &Experiment,
    available: &Available,
    backends: &[String],
) -> Result<Vec<CellSpec>, PlanError> {
    let axes = &experiment.axes;
    let (model, workloads) = (experiment.model.sizes(), workloads(experiment));
    let (precisions, variants) = (precisions(experiment, available, backends), variants(experiment, available));
    let stopping = Stopping {
        half_width_percent: experiment.stopping.half_width_percent,
        max_seconds: experiment.stopping.max_seconds,
    };
    let mut cells = Vec::new();
    for backend in backends {
        let tunes = available.tuned.iter().any(|name| name == backend_name(backend));
        let caches: Vec<(TuningCache, usize)> = axes
            .tuning_caches
            .iter()
            .take(if tunes { usize::MAX } else { 1 })
            .flat_map(|cache| {
                let cold = tunes && *cache == TuningCache::Cold;
                (0..if cold { experiment.tuning.cold_repeats } else { 1 }).map(|repeat| (*cache, repeat))
            })
            .collect();
        for (mode, (tuning_cache, repeat)) in product(&axes.modes, &caches) {
            for (precision, (batch_size, seq_length)) in
                product(&precisions, &product(&axes.batch_sizes, &axes.seq_lengths).collect::<Vec<_>>())
            {
                cells.extend(variants.iter().map(|variant| CellSpec {
                    backend: backend.clone(),
                    family: experiment.model.family.clone(),
                    variant: variant.clone(),
                    mode,
                    tuning_cache,
                    repeat,
                    precision,
                    batch_size,
                    seq_length,
                    model: model.clone(),
                    workloads: workloads.clone(),
                    stopping: stopping.clone(),
                    redo_disturbed: experiment.steps.redo_disturbed,
                    seed: experiment.seed,
                }));
            }
        }
    }
    for (index, exclude) in experiment.exclude.iter().enumerate() {
        if !cells.iter().any(|cell| matches(exclude, cell)) {
            let text = serde_json::to_string(exclude).unwrap_or_default();
            return Err(PlanError::UselessExclusion { number: index + 1, text });
        }
    }
    cells.retain(|cell| !experiment.exclude.iter().any(|exclude| matches(exclude, cell)));
    if cells.is_empty() { Err(PlanError::Empty) } else { Ok(cells) }
}

/// Every pair of values; the second varies faster.
fn product<'a, A: Copy, B: Copy>(a: &'a [A], b: &'a [B]) -> impl Iterator<Item = (A, B)> + 'a {
    a.iter().flat_map(move |a| b.iter().map(move |b| (*a, *b)))
}

fn backend_name(specification: &str) -> &str {
    specification.split(':').next().unwrap_or_default()
}

fn matches(exclude: &Exclude, cell: &CellSpec) -> bool {
    fn agrees<T: PartialEq>(wanted: Option<&T>, value: &T) -> bool {
        wanted.is_none_or(|wanted| wanted == value)
    }
    agrees(exclude.backend.as_ref(), &cell.backend)
        && agrees(exclude.variant.as_ref(), &cell.variant)
        && agrees(exclude.mode.as_ref(), &cell.mode)
        && agrees(exclude.tuning_cache.as_ref(), &cell.tuning_cache)
        && agrees(exclude.precision.as_ref(), &cell.precision)
        && agrees(exclude.batch_size.as_ref(), &cell.batch_size)
        && agrees(exclude.seq_length.as_ref(), &cell.seq_length)
}

fn workloads(experiment: &Experiment) -> Workloads {
    let steps = StepSpec { warmup_steps: experiment.steps.warmup, benchmark_steps: experiment.steps.benchmark };
    let (training, generation) = (&experiment.training, &experiment.generation);
    Workloads {
        training: training.enabled.then(|| TrainingSpec { steps: steps.clone(), optimizer: training.optimizer }),
        inference: experiment.inference.enabled.then_some(steps),
        generation: generation.enabled.then_some(GenerationSpec {
            batch_size: generation.batch_size,
            prompt_tokens: generation.prompt_tokens,
            new_tokens: generation.new_tokens,
            warmup_iterations: generation.warmup_iterations,
            iterations: generation.iterations,
        }),
    }
}

/// What is compared: every cell with the reference, which is the first backend, mode, tuning cache and variant at the
/// same sizes and precision; then every later variant with the first where all else is the same, if that is another
/// pair.
pub(super) fn pairs(experiment: &Experiment, cells: &[CellSpec]) -> Vec<Pair> {
    let (first, variant) = (&cells[0], &experiment.axes.variants[0]);
    let plain = |cell: &CellSpec| CellSpec { variant: variant.clone(), ..cell.clone() };
    let reference = |cell: &CellSpec| CellSpec {
        backend: first.backend.clone(),
        mode: first.mode,
        tuning_cache: first.tuning_cache,
        repeat: 0,
        ..plain(cell)
    };
    let wanted = cells.iter().map(reference).enumerate().chain(cells.iter().map(plain).enumerate());
    let mut pairs: Vec<Pair> = Vec::new();
    for (candidate, wanted) in wanted {
        let baseline = cells.iter().position(|cell| *cell == wanted);
        let pair = baseline.filter(|baseline| *baseline != candidate).map(|baseline| Pair { baseline, candidate });
        pairs.extend(pair.filter(|pair| !pairs.contains(pair)));
    }
    pairs
}

/// One verification for each backend, mode and precision among the cells, at the smallest sizes of the experiment.
#[must_use]
pub fn verifications<'a>(
    experiment: &Experiment,
    available: &Available,
    cells: impl IntoIterator<Item = &'a CellSpec>,
) -> Vec<VerifySpec> {
    let smallest = |sizes: &[usize]| sizes.iter().min().copied().unwrap_or(1);
    let mut verifications: Vec<VerifySpec> = Vec::new();
    for cell in cells {
        let name = backend_name(&cell.backend);
        let usual = Tolerance::of(cell.precision, available.tf32.iter().any(|coarse| coarse == name));
        let verification = VerifySpec {
            backend: cell.backend.clone(),
            family: cell.family.clone(),
            variants: variants(experiment, available),
            mode: cell.mode,
            precision: cell.precision,
            model: cell.model.clone(),
            batch_size: smallest(&experiment.axes.batch_sizes),
            seq_length: smallest(&experiment.axes.seq_lengths),
            seed: cell.seed,
            reference: None,
            export: None,
            tolerance: Tolerance {
                logits: experiment.verify.logits_tolerance.unwrap_or(usual.logits),
                gradients: experiment.verify.gradients_tolerance.unwrap_or(usual.gradients),
            },
        };
        if !verifications.contains(&verification) {
            verifications.push(verification);
        }
    }
    verifications
}
