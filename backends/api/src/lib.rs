//! The one trait every burnmark backend implements, and what it speaks of. The runner knows nothing else of a backend.

use burn::tensor::Device;
use thiserror::Error;

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
}

/// What a backend can do on its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states")]
pub struct Capabilities {
    /// Merges element-wise operations into kernels of its own.
    pub fusion: bool,
    /// Times candidate kernels and keeps the fastest.
    pub autotune: bool,
    /// Records a sequence of launches and replays it.
    pub graph_capture: bool,
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
}

/// Where the figures of [`MemoryReading`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySources {
    /// Of `current` and `peak`.
    pub in_use: &'static str,
    /// Of `reserved`.
    pub reserved: &'static str,
}

/// A backend: a name, its devices, and its probes.
pub trait Backend: Sync {
    /// Name in `--backend` and of the cargo feature.
    fn name(&self) -> &'static str;

    /// Opens a device; `device` is what stands behind the colon in `cuda:0`, empty if nothing does.
    fn open(&self, device: &str) -> Result<Device, OpenError>;

    /// What the hardware or driver calls the device.
    fn device_name(&self, device: &Device) -> String;

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
