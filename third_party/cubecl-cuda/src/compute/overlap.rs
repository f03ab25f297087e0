//! Kernels whose cubes take their places while the launch before them still runs (programmatic
//! dependent launch, from compute capability 9.0 on). Such a kernel waits by itself, by
//! `griddepcontrol.wait` in its code, for what that launch leaves.

use cudarc::driver::DriverError;
use cudarc::driver::sys::{
    self, CUfunction, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue,
    CUlaunchConfig, CUstream,
};
use std::ffi::c_void;

/// Launches a kernel, before the launch before it has ended if it `waits` for that.
///
/// # Safety
///
/// As of `cuLaunchKernelEx`; the code of a kernel that `waits` does wait.
pub(crate) unsafe fn launch(
    kernel: CUfunction,
    waits: bool,
    count: (u32, u32, u32),
    dim: (u32, u32, u32),
    shared_mem_bytes: u32,
    stream: CUstream,
    arguments: &mut [*mut c_void],
) -> Result<(), DriverError> {
    let mut attribute = CUlaunchAttribute {
        id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
    };
    let config = CUlaunchConfig {
        gridDimX: count.0,
        gridDimY: count.1,
        gridDimZ: count.2,
        blockDimX: dim.0,
        blockDimY: dim.1,
        blockDimZ: dim.2,
        sharedMemBytes: shared_mem_bytes,
        hStream: stream,
        attrs: &mut attribute,
        numAttrs: u32::from(waits),
    };
    // SAFETY: the caller's; the configuration outlives the call.
    unsafe {
        sys::cuLaunchKernelEx(&config, kernel, arguments.as_mut_ptr(), core::ptr::null_mut())
            .result()
    }
}
