use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use etcetera::BaseStrategy;
use tempfile::TempDir;

use super::CommandError;
use crate::spec::{CellSpec, GenerationSpec, Job, StepSpec, TrainingSpec, TuningCache, Workloads};

/// Variable that names burnmark's own tuning cache.
pub(super) const VARIABLE: &str = "BURNMARK_TUNING_CACHE";

/// Variables that name the folder in which drivers (NVIDIA's for CUDA and for Vulkan, Mesa's) and PyTorch's compilers keep what
/// they compiled, by default one for all processes of the user.
const OF_COMPILERS: [&str; 5] = [
    "CUDA_CACHE_PATH",
    "__GL_SHADER_DISK_CACHE_PATH",
    "MESA_SHADER_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
];

/// That folder within the cache of a cell.
const COMPILERS: &str = "compilers";

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

    /// What has to run before a warm cell so that it finds its cache filled: nothing if the same cell ran cold, to its end.
    pub(super) fn filling(&self, cell: &CellSpec) -> Option<Job> {
        let folder = self.of(cell);
        (cell.tuning_cache == TuningCache::Warm && !mark(&folder).exists()).then(|| Job::Measure {
            cell: shortened(cell),
            cache: Some(folder),
            once: false,
        })
    }
}

/// Makes the cache of a cell ready: empty unless it is to be found filled. Returns variables for its process, by which what lies
/// below CubeCL keeps its part in there too, so that no cell finds what another one had compiled.
///
/// # Errors
///
/// If it cannot be emptied or made.
pub(super) fn prepared(job: &Job) -> io::Result<Vec<(OsString, OsString)>> {
    let Some((cell, folder)) = own(job) else { return Ok(Vec::new()) };
    let of_compilers = folder.join(COMPILERS);
    if cell.tuning_cache != TuningCache::Warm {
        clear(folder)?;
        if of_compilers.exists() {
            fs::remove_dir_all(&of_compilers)?;
        }
    }
    fs::create_dir_all(&of_compilers)?;
    Ok(OF_COMPILERS.iter().map(|name| (name.into(), of_compilers.clone().into())).collect())
}

/// Marks the cache of a cell that did its work to its end.
pub(super) fn filled(job: &Job) -> io::Result<()> {
    own(job).map_or(Ok(()), |(_, folder)| fs::write(mark(folder), ""))
}

/// A file that says the cell's work was done to its end; it goes with what compilers left.
fn mark(folder: &Path) -> PathBuf {
    folder.join(COMPILERS).join("filled")
}

/// A cell that has a cache of its own, and that.
fn own(job: &Job) -> Option<(&CellSpec, &Path)> {
    match job {
        Job::Measure { cell, cache: Some(folder), .. } if cell.tuning_cache != TuningCache::Kept => {
            Some((cell, folder))
        }
        _ => None,
    }
}

/// Removes the databases of a folder, and nothing else that may be there; returns their bytes.
pub(super) fn clear(folder: &Path) -> io::Result<u64> {
    let mut removed = 0;
    if !folder.exists() {
        return Ok(removed);
    }
    for entry in folder.read_dir()? {
        let file = entry?.path();
        // `default.db`, `default.db-wal`, ...
        let extension = file.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extension == "db" || extension.starts_with("db-")) {
            removed += file.metadata()?.len();
            fs::remove_file(file)?;
        }
    }
    Ok(removed)
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
        let job = |cell: &CellSpec| Job::Measure { cell: cell.clone(), cache: Some(caches.of(cell)), once: false };
        let begun = |cell: &CellSpec| prepared(&job(cell)).expect("it can be written");
        let of_cold = begun(cold);
        assert!(!of_cold.is_empty() && of_cold.iter().all(|(_, folder)| Path::new(folder).is_dir()));
        assert!(caches.filling(warm).is_some(), "a cold cell that failed has filled nothing");
        filled(&job(cold)).expect("it can be written");
        assert!(caches.filling(warm).is_none());
        let left = ["default.db", "default.db-wal", "compilers/kernel", "of-others"].map(|it| caches.of(cold).join(it));
        for it in &left {
            fs::write(it, "by the first process").expect("the folder is there");
        }
        assert_eq!(begun(warm), of_cold);
        assert!(left.iter().all(|it| it.exists()));
        assert_eq!(begun(cold), of_cold);
        assert_eq!(left.map(|it| it.exists()), [false, false, false, true]);
        assert!(caches.filling(warm).is_some(), "it is emptied");
        assert!(begun(kept).is_empty());
    }
}
