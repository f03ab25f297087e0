//! A device's own recording of what it was given to do.

use burn::backend::{Backend, Dispatch, DispatchDevice, DispatchGraph, ExecutionError};
use burn::tensor::Device;
#[cfg(feature = "cubecl")]
use cubecl_common::device::OnCallersThread;
use send_wrapper::SendWrapper;

/// Runs before the one that is recorded: fusion and the tuners take other ways at first, and memory that a recorded run
/// asks for has to be there.
const EARLIER_RUNS: usize = 3;

/// What `work` launched, to be launched again as a whole. It reads and writes the same memory each time.
///
/// From its recording on what its thread asks of the device is prepared on that thread, and not handed to one of the device's:
/// a single launch is there sooner so, and memory is free again as soon as it is dropped. The thread that recorded it launches
/// and drops it.
pub struct DeviceGraph {
    device: DispatchDevice,
    /// It was recorded on its thread's stream and is launched on that.
    graph: SendWrapper<DispatchGraph>,
    #[cfg(feature = "cubecl")]
    _prepared_here: SendWrapper<OnCallersThread>,
}

impl DeviceGraph {
    /// Runs `work` several times and records the last; the graph, unless the device has none, and what that run returned,
    /// which the graph writes.
    pub fn record<T>(device: &Device, mut work: impl FnMut() -> T) -> (Option<Self>, T) {
        let device = device.as_dispatch();
        if let Err(error) = Dispatch::sync(device) {
            tracing::warn!("work before a recording failed: {error}");
        }
        #[cfg(feature = "cubecl")]
        let prepared_here = SendWrapper::new(OnCallersThread::new());
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
            Ok(graph) => {
                let graph = Self {
                    device: device.clone(),
                    graph: SendWrapper::new(graph),
                    #[cfg(feature = "cubecl")]
                    _prepared_here: prepared_here,
                };
                (Some(graph), result)
            }
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
        match (&self.device, &*self.graph) {
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
