use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use tempfile::TempDir;

use super::CommandError;
use crate::spec::{CellSpec, GenerationSpec, Job, StepSpec, TrainingSpec, TuningCache, Workloads};

/// Variable that names burnmark's own tuning cache.
pub(super) const VARIABLE: &str = "BURNMARK_TUNING_CACHE";

/// burnmark's own tuning cache, kept from run to run.
pub(super) fn kept() -> PathBuf {
    if let Some(folder) = std::env::var_os(VARIABLE) {
        return folder.into();
    }
    of_user().join("tuning")
}

/// The user's folder of everything that burnmark keeps from run to run.
pub(super) fn of_user() -> PathBuf {
    let user = etcetera::choose_base_strategy().map_or_else(|_| std::env::temp_dir(), |user| user.cache_dir());
    user.join("burnmark")
}

/// Where the cells of a run find tuned kernels and leave theirs: a folder each, but for the one that is kept.
pub(super) struct Caches {
    kept: PathBuf,
    /// Goes with the run.
    own: TempDir,
}

impl Caches {
    pub(super) fn new() -> Result<Self, CommandError> {
        let own =
            tempfile::Builder::new().prefix("burnmark-tuning-").tempdir().map_err(CommandError::TemporaryFolder)?;
        Ok(Self { kept: kept(), own })
    }

    pub(super) fn kept(&self) -> &Path {
        &self.kept
    }

    /// The folder of a cell.
    pub(super) fn of(&self, cell: &CellSpec) -> PathBuf {
        match cell.tuning_cache {
            TuningCache::Kept => self.kept.clone(),
            TuningCache::Warm => self.own.path().join(twin(cell).id()),
            TuningCache::Cold | TuningCache::Off => self.own.path().join(cell.id()),
        }
    }

    /// What has to run before a warm cell so that it finds its cache filled: nothing if the same cell ran cold.
    pub(super) fn filling(&self, cell: &CellSpec) -> Option<Job> {
        let folder = self.of(cell);
        (cell.tuning_cache == TuningCache::Warm && !folder.exists()).then(|| Job::Measure {
            cell: shortened(cell),
            cache: Some(folder),
            once: false,
        })
    }
}

/// The cold cell whose cache a warm one uses.
fn twin(cell: &CellSpec) -> CellSpec {
    CellSpec { tuning_cache: TuningCache::Cold, ..cell.clone() }
}

/// The same work, each once.
fn shortened(cell: &CellSpec) -> CellSpec {
    let once = StepSpec { warmup_steps: 1, benchmark_steps: 1 };
    let Workloads { training, inference, generation } = cell.workloads.clone();
    let workloads = Workloads {
        training: training.map(|training| TrainingSpec { steps: once.clone(), ..training }),
        inference: inference.map(|_| once),
        generation: generation.map(|spec| GenerationSpec { warmup_iterations: 1, iterations: 1, ..spec }),
    };
    CellSpec { workloads, ..twin(cell) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Experiment;
    use crate::plan::{Available, plan};

    #[test]
    fn a_warm_cell_uses_the_cache_of_its_cold_twin() {
        let mut experiment = Experiment::default();
        experiment.axes.tuning_caches = vec![TuningCache::Kept, TuningCache::Cold, TuningCache::Warm, TuningCache::Off];
        experiment.axes.variants.truncate(1);
        let available = Available {
            backends: vec!["tuned".to_owned()],
            external: Vec::new(),
            tf32: Vec::new(),
            mixed: Vec::new(),
            tuned: vec!["tuned".to_owned()],
            families: vec![("decoder".to_owned(), vec!["default".to_owned()])],
        };
        let cells = plan(&experiment, &available).expect("it plans").cells;
        let caches = Caches::new().expect("a temporary folder");
        let [kept, cold, warm, off] = cells.as_slice() else { panic!("four cells, not {}", cells.len()) };
        assert_eq!(caches.of(kept), caches.kept());
        assert_eq!(caches.of(cold), caches.of(warm));
        assert_ne!(caches.of(cold), caches.of(off));
        assert!(caches.filling(cold).is_none());
        assert!(caches.filling(warm).is_some());
        std::fs::create_dir_all(caches.of(cold)).expect("it is new");
        assert!(caches.filling(warm).is_none());
    }
}
