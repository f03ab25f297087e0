//! What a CUDA device, its streams and its client are asked.

use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;
use cubecl_runtime::runtime::Runtime;
use cudarc::driver::sys::{
    CUcontext, CUevent_flags, CUgraphInstantiate_flags, CUstream, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use cudarc::driver::{DriverError, result as driver};

/// Whether the client's device is CUDA's.
pub(crate) fn is_cuda(client: &Client) -> bool {
    client.service_id().service == std::any::TypeId::of::<<CudaRuntime as Runtime>::Server>()
}

/// The primary context of a device, which CubeCL works in and which lives as long as the process, made this thread's.
pub(crate) fn context(device: u16) -> Result<CUcontext, String> {
    let context = || {
        driver::init()?;
        let device = driver::device::get(i32::from(device))?;
        // SAFETY: a primary context is retained as often as one likes.
        let context = unsafe { driver::primary_ctx::retain(device)? };
        make_current(context).map(|()| context)
    };
    context().map_err(refused)
}

/// Makes the context this thread's.
pub(crate) fn make_current(context: CUcontext) -> Result<(), DriverError> {
    // SAFETY: the context lives as long as the process.
    unsafe { driver::ctx::set_current(context) }
}

/// Whether what the stream gets is recorded instead of run.
pub(crate) fn is_recorded(stream: CUstream) -> Result<bool, String> {
    // SAFETY: the stream is alive.
    let status = unsafe { driver::stream::is_capturing(stream) }.map_err(refused)?;
    Ok(status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
}

/// Milliseconds that what `work` launches takes on the stream, which is waited for. It is recorded and then launched as one,
/// since the host launches more slowly than small products are made.
pub(crate) fn elapsed(stream: CUstream, work: impl FnOnce() -> Result<(), String>) -> Result<f32, String> {
    let event = || driver::event::create(CUevent_flags::CU_EVENT_DEFAULT).map_err(refused);
    let (begin, end) = (event()?, event()?);
    // SAFETY: stream, events and graph are alive; events and graph are destroyed here alone, after what they are used for.
    unsafe {
        driver::stream::begin_capture(stream, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(refused)?;
        let launched = work();
        let graph = driver::stream::end_capture(stream).map_err(refused)?;
        let replays = driver::graph::instantiate(graph, CUgraphInstantiate_flags(0)).map_err(refused)?;
        driver::graph::launch(replays, stream).map_err(refused)?;
        driver::event::record(begin, stream).map_err(refused)?;
        driver::graph::launch(replays, stream).map_err(refused)?;
        driver::event::record(end, stream).map_err(refused)?;
        driver::event::synchronize(end).map_err(refused)?;
        let elapsed = driver::event::elapsed(begin, end).map_err(refused);
        driver::graph::exec_destroy(replays).map_err(refused)?;
        driver::graph::destroy(graph).map_err(refused)?;
        driver::event::destroy(begin).map_err(refused)?;
        driver::event::destroy(end).map_err(refused)?;
        launched.and(elapsed)
    }
}

/// What the driver said.
pub(crate) fn refused(error: DriverError) -> String {
    format!("the driver: {error}")
}
