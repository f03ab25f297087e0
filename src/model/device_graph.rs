//! A device's own recording of what it was given to do.

use burn::backend::{Backend, Dispatch, DispatchDevice, DispatchGraph, ExecutionError};
use burn::tensor::Device;

/// Runs before the one that is recorded: fusion and the tuners take other ways at first, and memory that a recorded run
/// asks for has to be there.
const EARLIER_RUNS: usize = 3;

/// What `work` launched, to be launched again as a whole. It reads and writes the same memory each time.
pub struct DeviceGraph {
    device: DispatchDevice,
    graph: DispatchGraph,
}

impl DeviceGraph {
    /// Runs `work` several times and records the last; the graph, unless the device has none, and what that run returned,
    /// which the graph writes.
    pub fn record<T>(device: &Device, mut work: impl FnMut() -> T) -> (Option<Self>, T) {
        let device = device.as_dispatch();
        // What has to be made ready and fails is told where recording begins.
        let _ = Dispatch::graph_prepare(device);
        for _ in 0..EARLIER_RUNS {
            // Fusion never computes what nobody holds any more when the device is synchronised.
            let _held = work();
            let _ = Dispatch::sync(device);
        }
        if Dispatch::graph_start_capture(device).is_err() {
            return (None, work());
        }
        let result = work();
        let graph = Dispatch::graph_stop_capture(device).ok();
        (graph.map(|graph| Self { device: device.clone(), graph }), result)
    }

    /// Launches what was recorded.
    ///
    /// # Safety
    ///
    /// What the recorded run read and wrote has to be alive until the device has run the graph, and to be used by this
    /// thread alone. This thread must have given the device nothing that still waits to be fused and that touches it.
    pub unsafe fn launch(&self) -> Result<(), ExecutionError> {
        match (&self.device, &self.graph) {
            // Past fusion, which would be asked for what waits.
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
