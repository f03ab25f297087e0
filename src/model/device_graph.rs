//! A device's own recording of what it was given to do.

use std::thread::{self, ThreadId};

use burn::backend::{Backend, Dispatch, DispatchDevice, DispatchGraph, ExecutionError};
use burn::tensor::Device;

/// Runs before the one that is recorded: fusion and the tuners take other ways at first, and memory that a recorded run
/// asks for has to be there.
const EARLIER_RUNS: usize = 3;

/// What `work` launched, to be launched again as a whole. It reads and writes the same memory each time.
pub struct DeviceGraph {
    device: DispatchDevice,
    graph: DispatchGraph,
    /// Whose stream it was recorded on and is launched on.
    thread: ThreadId,
}

impl DeviceGraph {
    /// Runs `work` several times and records the last; the graph, unless the device has none, and what that run returned,
    /// which the graph writes.
    pub fn record<T>(device: &Device, mut work: impl FnMut() -> T) -> (Option<Self>, T) {
        let device = device.as_dispatch();
        // A device without graphs says so here and where recording begins.
        let _ = Dispatch::graph_prepare(device);
        for _ in 0..EARLIER_RUNS {
            // Fusion never computes what nobody holds any more when the device is synchronised.
            let _held = work();
            if let Err(error) = Dispatch::sync(device) {
                tracing::warn!("work that is to be recorded failed: {error}");
            }
        }
        if let Err(error) = Dispatch::graph_start_capture(device) {
            tracing::debug!("nothing is recorded: {error}");
            return (None, work());
        }
        let result = work();
        match Dispatch::graph_stop_capture(device) {
            Ok(graph) => (Some(Self { device: device.clone(), graph, thread: thread::current().id() }), result),
            Err(error) => {
                tracing::warn!("a recording failed, the work is launched instead: {error}");
                (None, result)
            }
        }
    }

    /// Launches what was recorded.
    ///
    /// # Safety
    ///
    /// What the recorded run read and wrote has to be alive until the device has run the graph, and to be used by this
    /// thread alone, which has given the device nothing that touches it and still waits to be fused.
    ///
    /// # Panics
    ///
    /// On another thread than that which recorded.
    pub unsafe fn launch(&self) -> Result<(), ExecutionError> {
        assert_eq!(self.thread, thread::current().id(), "a graph is launched by the thread that recorded it");
        match (&self.device, &self.graph) {
            // Not through fusion, whose thread would be asked to launch what waits there first.
            #[cfg(feature = "cubecl")]
            // SAFETY: as of this function.
            (DispatchDevice::Cube(device), DispatchGraph::Cube(graph)) => unsafe {
                burn_cubecl::CubeBackend::graph_replay(device, graph)
            },
            // SAFETY: as of this function.
            (device, graph) => unsafe { Dispatch::graph_replay(device, graph) },
        }
    }
}
