use std::path::Path;

use burn::tensor::Device;
use burnmark_backend_api::{Backend, CardState, Origin};

use super::nanoseconds;
use super::processors::{Load, Throttling};

/// Where the system tells of its processors.
const ROOT: &str = "/";

/// What can be told of the machine at one moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Processor time, where the system tells.
    pub(super) load: Option<Load>,
    /// How often processors were throttled so far.
    pub(super) throttled: u64,
    /// The graphics card, if the backend reads one.
    pub(super) card: Option<Result<CardState, String>>,
}

/// A clock, and what tells whether a machine does what it did before.
pub trait Sensors {
    /// Nanoseconds since the device was open.
    fn now_ns(&self) -> u64;

    /// The state of the machine now.
    fn read(&self) -> State;
}

/// The sensors of this machine and of a backend's device.
pub struct Machine<'a> {
    backend: &'static dyn Backend,
    device: &'a Device,
    origin: Origin,
    throttling: Throttling,
}

impl<'a> Machine<'a> {
    /// The sensors for work on `device`, which was open at `origin`.
    #[must_use]
    pub fn new(backend: &'static dyn Backend, device: &'a Device, origin: Origin) -> Self {
        Self { backend, device, origin, throttling: Throttling::find(Path::new(ROOT)) }
    }
}

impl Sensors for Machine<'_> {
    fn now_ns(&self) -> u64 {
        nanoseconds(self.origin.elapsed())
    }

    fn read(&self) -> State {
        State {
            load: Load::read(Path::new(ROOT)),
            throttled: self.throttling.count(),
            card: self.backend.card(self.device),
        }
    }
}
