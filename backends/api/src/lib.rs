//! The one trait every burnmark backend implements, and what it speaks of. The runner knows nothing else of a backend.

mod card;
mod tuning;

use std::path::PathBuf;

use burn::tensor::{DType, Device, TimingMethod};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use card::CardState;
pub use tuning::{
    CompiledKernel, KernelUse, LaunchWatch, Origin, Trial, TunedKey, TuningContents, TuningEvents, TuningStore,
};

/// Why a device could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The part of the specification behind the colon names no device of this backend.
    #[error("backend `{backend}` has no device `{device}`; it has: {known}")]
    UnknownDevice {
        /// Backend name.
        backend: &'static str,
        /// What was asked for.
        device: String,
        /// Devices that can be asked for.
        known: String,
    },
    /// There is no such device on this machine, or its driver refused.
    #[error("backend `{backend}` cannot open {}: {reason}; {remedy}", named(device))]
    Unavailable {
        /// Backend name.
        backend: &'static str,
        /// What was asked for.
        device: String,
        /// What the driver or loader said.
        reason: String,
        /// What to do about it.
        remedy: &'static str,
    },
}

/// A device as the user named it, or the one that is taken if none is named.
fn named(device: &str) -> String {
    if device.is_empty() { "its first device".to_owned() } else { format!("device `{device}`") }
}

/// What a backend can do on its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states")]
pub struct Capabilities {
    /// Merges element-wise operations into kernels of its own.
    pub fusion: bool,
    /// Times candidate kernels and keeps the fastest.
    pub autotune: bool,
    /// Records a sequence of launches and replays it.
    pub graph_capture: bool,
    /// Rounds the factors of single-precision products to TF32, whose significand has 11 bits.
    pub tf32: bool,
    /// Whether mixed precision is what its devices are made for.
    pub mixed: bool,
    /// Executes an operation before its call returns; otherwise a clock must synchronise first.
    pub synchronous: bool,
}

/// One reading of memory, in bytes. A figure that cannot be had is the reason why.
#[derive(Clone, Debug)]
pub struct MemoryReading {
    /// In use now.
    pub current: Result<u64, String>,
    /// Most in use at once since [`Backend::reset_peak`].
    pub peak: Result<u64, String>,
    /// Held from the operating system or driver now.
    pub reserved: Result<u64, String>,
    /// Lost to alignment within what is in use, where the allocator tells.
    pub padding: Option<u64>,
}

/// Where the figures of [`MemoryReading`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySources {
    /// Of `current` and `padding`.
    pub in_use: &'static str,
    /// Of `peak`.
    pub peak: &'static str,
    /// Of `reserved`.
    pub reserved: &'static str,
}

/// How much a backend may spend on choosing kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autotune {
    /// As little as it can.
    Minimal,
    /// What it does by itself.
    Balanced,
    /// Everything it can.
    Full,
}

/// What is put into effect before a process's first device opens; a second time is too late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Merge element-wise operations into kernels, where the backend can.
    pub fusion: bool,
    /// Effort on choosing kernels, where the backend does so.
    pub autotune: Autotune,
    /// Folder for what tuning and compiling leave; `None` is the backend's own place.
    pub cache: Option<PathBuf>,
    /// Whether answers of earlier processes are used and those of this one kept.
    pub keep_answers: bool,
}

/// A device as `burnmark devices` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDevice {
    /// What names it on the command line, such as `cuda:0`.
    pub device: String,
    /// What the hardware or driver calls it.
    pub name: String,
    /// What kernels are compiled for, or the library behind it with its version.
    pub driver: Option<String>,
    /// Memory of the device, in bytes.
    pub memory_bytes: Option<u64>,
    /// Element types it computes in.
    pub dtypes: Vec<String>,
    /// Whether it has a clock of its own, beside the host's.
    pub device_clock: bool,
}

/// A backend: a name, its devices, and its probes.
pub trait Backend: Sync {
    /// Name in `--backend` and of the cargo feature.
    fn name(&self) -> &'static str;

    /// What to do if the backend has no device on a machine that should have one.
    fn remedy(&self) -> &'static str;

    /// Why it cannot do what its capabilities lack.
    fn lacks(&self) -> &'static str;

    /// The devices there are, or why there are none. Loads drivers, which may crash: ask in a process that may.
    fn devices(&self) -> Result<Vec<FoundDevice>, String>;

    /// Puts a setup into effect; before the first device opens.
    fn configure(&self, setup: &Setup) {
        let _ = setup;
    }

    /// Has what this process tunes and compiles from now on kept for [`TuningStore::events`], if the backend does either;
    /// after the device is open. Returns when that began: there their time axis begins.
    fn record_tuning(&self) -> Option<Origin> {
        None
    }

    /// Counts the kernels that are launched until the watch is asked for them, if the backend can tell.
    fn watch_launches(&self) -> Option<Box<dyn LaunchWatch>> {
        None
    }

    /// What reads and copies the tuning caches of this backend, if it keeps any.
    fn tuning_store(&self) -> Option<&'static dyn TuningStore> {
        None
    }

    /// Memory of the device that this process holds as its driver counts it, in bytes, with the name of the source; or
    /// why there is no such figure.
    fn driver_memory(&self, device: &Device) -> Option<(&'static str, Result<u64, String>)> {
        let _ = device;
        None
    }

    /// The vendor's library that makes matrix products where a model asks for it, by name and version, or why there is none;
    /// `None` where none is known for the backend's devices.
    fn vendor_products(&self) -> Option<Result<String, String>> {
        None
    }

    /// What the graphics card behind the device tells of itself now, or why it does not, if the backend reads cards. Asked
    /// between samples: it must be quick.
    fn card(&self, device: &Device) -> Option<Result<CardState, String>> {
        let _ = device;
        None
    }

    /// Opens a device; `device` is what stands behind the colon in `cuda:0`, empty if nothing does.
    fn open(&self, device: &str) -> Result<Device, OpenError>;

    /// What the hardware or driver calls the device.
    fn device_name(&self, device: &Device) -> String;

    /// The driver or library that the device is reached by, with its version, where that can be had.
    fn driver(&self, device: &Device) -> Option<String> {
        let _ = device;
        None
    }

    /// Threads it computes with, where that is a fixed number.
    fn threads(&self) -> Option<usize>;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Where memory figures come from.
    fn memory_sources(&self) -> MemorySources;

    /// Memory now.
    fn memory(&self, device: &Device) -> MemoryReading;

    /// Starts a new peak at what is in use now.
    fn reset_peak(&self, device: &Device);

    /// Gives memory that nothing uses back to the operating system or driver.
    fn release(&self, device: &Device);
}

/// Whether a device times work on a clock of its own.
pub fn has_clock(device: &Device) -> bool {
    device.profile(|| ()).is_ok_and(|((), window)| window.timing_method() == TimingMethod::Device)
}

/// The element types among f64, f32, bf16 and f16 that a device computes in, by name.
pub fn supported_dtypes(device: &Device) -> Vec<String> {
    let candidates = [("f64", DType::F64), ("f32", DType::F32), ("bf16", DType::BF16), ("f16", DType::F16)];
    candidates.into_iter().filter(|(_, dtype)| device.supports_dtype(*dtype)).map(|(name, _)| name.to_owned()).collect()
}
