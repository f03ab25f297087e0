use burn::tensor::Device;
use burnmark_backend_api::Backend;

use super::Clock;
use crate::spec::{Failure, Figure, MemoryObservation, MemoryPhase, PhaseMemory};

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

    /// Most in use at once since the peak was reset, less what was in use at the start.
    #[must_use]
    pub fn peak_beyond_start(&self) -> Figure {
        self.beyond_start(figure(self.backend.memory(self.device).peak, self.backend.memory_sources().peak))
    }

    /// In use now, less what was in use at the start.
    #[must_use]
    pub fn current_beyond_start(&self) -> Figure {
        self.beyond_start(figure(self.current(), self.backend.memory_sources().in_use))
    }

    fn beyond_start(&self, figure: Figure) -> Figure {
        let bytes = figure.bytes.zip(self.start.bytes).map(|(bytes, start)| bytes.saturating_sub(start));
        Figure { bytes, ..figure }
    }

    /// In use now, in bytes; or why that is not known.
    pub fn current(&self) -> Result<u64, String> {
        self.backend.memory(self.device).current
    }

    /// Runs one part of a step to its end and reads what it used.
    pub fn phase<R>(&self, phase: MemoryPhase, work: impl FnOnce() -> R) -> Result<(R, PhaseMemory), Failure> {
        let sources = self.backend.memory_sources();
        self.backend.release(self.device);
        self.backend.reset_peak(self.device);
        let result = work();
        Clock::new(self.device).sync()?;
        let reading = self.backend.memory(self.device);
        Ok((
            result,
            PhaseMemory {
                phase,
                peak: figure(reading.peak, sources.peak),
                current: figure(reading.current, sources.in_use),
            },
        ))
    }

    /// What the driver says the process holds.
    #[must_use]
    pub fn driver(&self) -> Option<Figure> {
        let (source, bytes) = self.backend.driver_memory(self.device)?;
        Some(figure(bytes, source))
    }

    /// Reads peak, current and reserved after the last step; `after_release` is still to come.
    #[must_use]
    pub fn read(&self) -> MemoryObservation {
        let sources = self.backend.memory_sources();
        let reading = self.backend.memory(self.device);
        MemoryObservation {
            start: self.start.clone(),
            peak: figure(reading.peak, sources.peak),
            current: figure(reading.current, sources.in_use),
            padding: reading.padding.map(|bytes| Figure::read(bytes, sources.in_use)),
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
