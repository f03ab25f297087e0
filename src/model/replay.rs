use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Graph, Int, Tensor, capture};

/// Work on token ids `[batch, count]` that reads nothing from the host, so that it can be recorded.
pub type Work<'a, const D: usize> = Box<dyn FnMut(Tensor<2, Int>) -> Tensor<D> + Send + 'a>;

/// Work that is recorded as a graph when it first meets a shape and replayed from then on; on a device without graphs
/// it runs again each time.
pub struct Replay<'a, const D: usize> {
    device: Device,
    work: Arc<Mutex<Work<'a, D>>>,
    recording: Option<Recording<'a, D>>,
}

struct Recording<'a, const D: usize> {
    /// What the graph reads: always the same buffer, written in place.
    ids: Held<Tensor<2, Int>>,
    graph: Graph<Tensor<D>, Box<dyn FnMut() -> Tensor<D> + Send + 'a>>,
}

impl<'a, const D: usize> Replay<'a, D> {
    /// Nothing is recorded yet.
    #[must_use]
    pub fn new(device: &Device, work: Work<'a, D>) -> Self {
        Self { device: device.clone(), work: Arc::new(Mutex::new(work)), recording: None }
    }

    /// Whether the next run with such ids would have to record first.
    pub fn is_new(&self, ids: &Tensor<2, Int>) -> bool {
        self.recording.as_ref().is_none_or(|recording| recording.ids.lock().dims() != ids.dims())
    }

    /// Records the work for ids of this shape; it runs several times.
    pub fn record(&mut self, ids: Tensor<2, Int>) {
        self.recording = None;
        let (ids, work) = (Held::new(ids), self.work.clone());
        let read = ids.clone();
        let run: Box<dyn FnMut() -> Tensor<D> + Send + 'a> = Box::new(move || {
            let ids = read.lock().clone();
            (work.lock().unwrap_or_else(PoisonError::into_inner))(ids)
        });
        self.recording = Some(Recording { ids, graph: capture(&self.device, run) });
    }

    /// The work's result for `ids`; the next run overwrites it.
    pub fn run(&mut self, ids: Tensor<2, Int>) -> Tensor<D> {
        if self.is_new(&ids) {
            self.record(ids.clone());
        }
        let recording = self.recording.as_mut().expect("recorded above");
        let [batch, count] = ids.dims();
        recording.ids.lock().inplace(|held| held.slice_assign([0..batch, 0..count], ids));
        // SAFETY: what the graph reads and writes is owned by its closure, which lives as long; everything is issued
        // from this thread, and the result is a handle on a buffer that the graph keeps.
        unsafe { recording.graph.replay() }.clone()
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
