use burn::tensor::{Device, Int, Tensor};

use super::device_graph::DeviceGraph;
use crate::ops::RecordedInput;

/// Work on token ids `[batch, count]` and a position `[1]` that reads nothing from the host, so that it can be recorded.
pub type Work<'a, T> = Box<dyn FnMut(Tensor<2, Int>, &Tensor<1, Int>) -> T + Send + 'a>;

/// Work that is recorded as a graph when it first meets a shape and replayed from then on; on a device without graphs
/// it runs again each time.
pub struct Replay<'a, T> {
    recording: Option<Recording<T>>,
    device: Device,
    work: Work<'a, T>,
}

struct Recording<T> {
    /// Dropped before the memory that it reads and writes.
    graph: Option<DeviceGraph>,
    /// What the graph reads.
    inputs: RecordedInput,
    /// What the graph writes.
    result: T,
}

impl<'a, T> Replay<'a, T> {
    /// Nothing is recorded yet.
    #[must_use]
    pub fn new(device: &Device, work: Work<'a, T>) -> Self {
        Self { recording: None, device: device.clone(), work }
    }

    /// Whether the next run with such ids would have to record first.
    pub fn is_new(&self, ids: &Tensor<2, Int>) -> bool {
        self.recording.as_ref().is_none_or(|recording| recording.inputs.dims() != ids.dims())
    }

    /// The work's result for `ids` at `position`; the next run overwrites it. Ids of a new shape are recorded first,
    /// for which the work runs several times. Ids are made, and all runs are asked for, by one thread.
    pub fn run(&mut self, ids: Tensor<2, Int>, position: usize) -> &T {
        if self.is_new(&ids) {
            self.recording = None;
            let inputs = RecordedInput::new(ids.clone(), position);
            let (graph, result) = DeviceGraph::record(&self.device, || (self.work)(inputs.ids(), &inputs.position()));
            self.recording = Some(Recording { graph, inputs, result });
        }
        let Recording { graph, inputs, result } = self.recording.as_mut().expect("recorded above");
        inputs.place(ids, position);
        match graph {
            // SAFETY: what the graph reads and writes belongs to the work, the inputs and the result, which live as long;
            // everything is issued from this thread, and placing the inputs leaves nothing that waits.
            Some(graph) => unsafe { graph.launch() }.expect("a recorded graph is launched"),
            None => *result = (self.work)(inputs.ids(), &inputs.position()),
        }
        result
    }

    /// Whether the device replays a graph of its own.
    pub fn is_hardware(&self) -> bool {
        self.recording.as_ref().is_some_and(|recording| recording.graph.is_some())
    }
}
