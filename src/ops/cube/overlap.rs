//! Launches that overlap: a kernel's cubes take their places while the launch before still runs, ask for what does not come from
//! it, and wait for the rest by themselves (CUDA's programming guide, programmatic dependent launch).
//!
//! A kernel that overlaps waits before it reads what a launch before it has left or writes anything. What it reads before that
//! must be older than the last launch that did not overlap: such a launch began when all before it had ended. Weights are, and
//! norms' scales.

use cubecl::client::Client;
use cubecl::prelude::*;

/// Whether launches of the device can overlap. Devices that store matrices from registers, NVIDIA's from compute capability 9.0
/// on, are those.
pub(crate) fn overlaps(client: &Client) -> bool {
    !client.properties().features.matmul.stmatrix.is_empty()
}

/// The next launch's cubes may take the places that are left as soon as all cubes of this one have come here.
#[cube]
pub(crate) fn next_may_begin() {
    gpu_asm!("griddepcontrol.launch_dependents;");
}

/// Waits until all launches before this one have ended. `left` is what they wrote: it is named as written here, so that no read
/// of it is moved before the wait.
#[cube]
pub(crate) fn wait_for<T: CubePrimitive>(left: &mut [T]) {
    gpu_asm!("griddepcontrol.wait; /* {} */", mem_out(_) left.as_mut_ptr(), options(explicit_mem));
}
