use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Graph, Int, Tensor, capture};

use crate::ops::RecordedInput;

/// Work on token ids `[batch, count]` and a position `[1]` that reads nothing from the host, so that it can be recorded.
pub type Work<'a, T> = Box<dyn FnMut(Tensor<2, Int>, &Tensor<1, Int>) -> T + Send + 'a>;

/// Work that is recorded as a graph when it first meets a shape and replayed from then on; on a device without graphs
/// it runs again each time.
pub struct Replay<'a, T> {
    device: Device,
    work: Arc<Mutex<Work<'a, T>>>,
    recording: Option<Recording<'a, T>>,
}

struct Recording<'a, T> {
    /// What the graph reads.
    inputs: Held<RecordedInput>,
    graph: Graph<T, Box<dyn FnMut() -> T + Send + 'a>>,
}

impl<'a, T: 'a> Replay<'a, T> {
    /// Nothing is recorded yet.
    #[must_use]
    pub fn new(device: &Device, work: Work<'a, T>) -> Self {
        Self { device: device.clone(), work: Arc::new(Mutex::new(work)), recording: None }
    }

    /// Whether the next run with such ids would have to record first.
    pub fn is_new(&self, ids: &Tensor<2, Int>) -> bool {
        self.recording.as_ref().is_none_or(|recording| recording.inputs.lock().dims() != ids.dims())
    }

    /// The work's result for `ids` at `position`; the next run overwrites it. Ids of a new shape are recorded first,
    /// for which the work runs several times.
    pub fn run(&mut self, ids: Tensor<2, Int>, position: usize) -> &T {
        if self.is_new(&ids) {
            self.recording = None;
            self.recording = Some(self.recorded(ids.clone(), position));
        }
        let recording = self.recording.as_mut().expect("recorded above");
        recording.inputs.lock().place(ids, position);
        // SAFETY: what the graph reads and writes is owned by its closure, which lives as long; everything is issued
        // from this thread, and the result is a handle on a buffer that the graph keeps.
        unsafe { recording.graph.replay() }
    }

    fn recorded(&self, ids: Tensor<2, Int>, position: usize) -> Recording<'a, T> {
        let (inputs, work) = (Held::new(RecordedInput::new(ids, position)), self.work.clone());
        let read = inputs.clone();
        let run: Box<dyn FnMut() -> T + Send + 'a> = Box::new(move || {
            let inputs = read.lock().clone();
            (work.lock().unwrap_or_else(PoisonError::into_inner))(inputs.ids(), &inputs.position())
        });
        Recording { inputs, graph: capture(&self.device, run) }
    }

    /// Whether the device replays a graph of its own.
    pub fn is_hardware(&self) -> bool {
        self.recording.as_ref().is_some_and(|recording| recording.graph.is_hardware())
    }
}

/// A value that a recorded closure and its owner share.
pub(super) struct Held<T>(Arc<Mutex<T>>);

impl<T> Held<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(value)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
