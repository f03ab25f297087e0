//! Copies into a cube's memory that are on their way while other things are computed, on devices that have them.

use cubecl::prelude::*;

/// Begins to copy a vector of 16 bytes, of which those behind the first `bytes` are zeros (CUDA's PTX ISA, `cp.async`).
#[cube]
pub(crate) fn bring<F: Float, W: Size>(from: &[Vector<F, W>], to: &mut [Vector<F, W>], bytes: u32) {
    gpu_asm!(
        "{{ .reg .u64 to; cvta.to.shared.u64 to, {}; cp.async.cg.shared.global [to], [{}], 16, {}; }}",
        mem_out(_) to.as_mut_ptr(),
        mem_in(_) from.as_ptr(),
        in(_) bytes,
        options(explicit_mem)
    );
}

/// Waits for what this unit has begun to copy.
#[cube]
pub(crate) fn own_arrived() {
    gpu_asm!("cp.async.wait_all;");
}

/// Has CUDA's compiler use as many registers as are good for a unit, however few cubes a processor then has room for (PTX ISA,
/// `.minnctapersm`).
#[cube]
pub(crate) fn for_one_cube() {
    gpu_asm!("// .minnctapersm 1");
}
