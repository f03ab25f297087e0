//! The backends compiled into this program, best first.

use std::path::PathBuf;

use burn::tensor::Device;
use burnmark_backend_api::{Autotune, Backend, Setup};

use crate::runner::Child;
use crate::spec::{Failure, FailureKind, Mode, TuningCache};

/// Every backend of this build; the first is the one used when none is named.
#[must_use]
pub fn compiled() -> Vec<&'static dyn Backend> {
    vec![
        #[cfg(feature = "cuda")]
        &burnmark_backend_cuda::Cuda,
        #[cfg(feature = "metal")]
        &burnmark_backend_wgpu::METAL,
        #[cfg(feature = "vulkan")]
        &burnmark_backend_wgpu::VULKAN,
        #[cfg(feature = "wgpu")]
        &burnmark_backend_wgpu::WGPU,
        #[cfg(feature = "flex")]
        &burnmark_backend_flex::Flex,
        #[cfg(feature = "tch")]
        &burnmark_backend_tch::Tch,
    ]
}

/// Names of [`compiled`] backends.
#[must_use]
pub fn names() -> Vec<String> {
    compiled().iter().map(|backend| backend.name().to_owned()).collect()
}

/// Cargo features of this build that decide what is measured.
#[must_use]
pub fn features() -> Vec<String> {
    let known = [
        ("cuda", cfg!(feature = "cuda")),
        ("cuda-cpp", cfg!(feature = "cuda-cpp")),
        ("flex", cfg!(feature = "flex")),
        ("metal", cfg!(feature = "metal")),
        ("tch", cfg!(feature = "tch")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("wgpu", cfg!(feature = "wgpu")),
    ];
    known.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()).collect()
}

/// The backend that a specification such as `flex` or `cuda:0` names, and what it says of the device.
pub fn find(specification: &str) -> Result<(&'static dyn Backend, &str), Failure> {
    let (name, device) = specification.split_once(':').unwrap_or((specification, ""));
    let backend = compiled().into_iter().find(|backend| backend.name() == name).ok_or_else(|| {
        unsupported(format!(
            "backend `{name}` is not compiled in (this program has: {}); build it with `cargo run --release --features {name}`",
            names().join(", ")
        ))
    })?;
    Ok((backend, device))
}

/// The backend that is PyTorch itself.
pub const PYTORCH: &str = "pytorch";

/// What to do where an external backend does not answer.
pub const EXTERNAL_REMEDY: &str =
    "`pip install torch==2.9.1` puts PyTorch in place; BURNMARK_PYTHON names another Python";

/// Why an external backend cannot do everything.
pub const EXTERNAL_LACKS: &str = "PyTorch records graphs and keeps a clock of the device's on CUDA alone";

/// The program behind a backend that is a process of its own and speaks the cell protocol: PyTorch, through the Python
/// that `BURNMARK_PYTHON` names, else `python3`.
#[must_use]
pub fn external(specification: &str) -> Option<Child> {
    (specification.split(':').next() == Some(PYTORCH)).then(|| Child {
        program: std::env::var_os("BURNMARK_PYTHON").unwrap_or_else(|| "python3".into()).into(),
        arguments: vec!["-c".into(), include_str!("../backends/pytorch/cell.py").into()],
        environment: Vec::new(),
    })
}

/// Puts what a mode and a tuning cache ask for into effect, for this whole process, and opens a device. `cache` is the
/// folder of what tuning finds and leaves.
pub fn open(
    specification: &str,
    mode: Mode,
    tuning: TuningCache,
    cache: Option<PathBuf>,
) -> Result<(&'static dyn Backend, Device), Failure> {
    let (backend, device) = find(specification)?;
    let (fusion, autotune) = match mode {
        Mode::NoCompile => (false, Autotune::Minimal),
        Mode::Default | Mode::ReduceOverhead => (true, Autotune::Balanced),
        Mode::MaxAutotune => (true, Autotune::Full),
    };
    backend.configure(&Setup { fusion, autotune, cache, keep_answers: tuning != TuningCache::Off });
    let device = backend.open(device).map_err(|error| unsupported(error.to_string()))?;
    Ok((backend, device))
}

fn unsupported(message: String) -> Failure {
    Failure::new(FailureKind::Unsupported, message)
}
