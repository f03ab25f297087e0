use burn::tensor::Device;
use burnmark_backend_api::Backend;

use crate::spec::{Figure, MemoryObservation};

/// Reads a backend's memory figures around a workload.
pub struct MemoryProbe<'a> {
    backend: &'static dyn Backend,
    device: &'a Device,
    start: Figure,
}

impl<'a> MemoryProbe<'a> {
    /// Begins a workload: what is in use now is its start.
    #[must_use]
    pub fn new(backend: &'static dyn Backend, device: &'a Device) -> Self {
        let start = figure(backend.memory(device).current, backend.memory_sources().in_use);
        Self { backend, device, start }
    }

    /// Starts a new peak.
    pub fn reset_peak(&self) {
        self.backend.reset_peak(self.device);
    }

    /// Reads peak, current and reserved after the last step; `after_release` is still to come.
    #[must_use]
    pub fn read(&self) -> MemoryObservation {
        let sources = self.backend.memory_sources();
        let reading = self.backend.memory(self.device);
        MemoryObservation {
            start: self.start.clone(),
            peak: figure(reading.peak, sources.in_use),
            current: figure(reading.current, sources.in_use),
            reserved: figure(reading.reserved, sources.reserved),
            after_release: Figure::missing(sources.in_use, "the workload is still alive"),
        }
    }

    /// What is in use once the workload's model and inputs are gone.
    #[must_use]
    pub fn after_release(&self) -> Figure {
        self.backend.release(self.device);
        figure(self.backend.memory(self.device).current, self.backend.memory_sources().in_use)
    }
}

fn figure(reading: Result<u64, String>, source: &str) -> Figure {
    match reading {
        Ok(bytes) => Figure::read(bytes, source),
        Err(why) => Figure::missing(source, &why),
    }
}
