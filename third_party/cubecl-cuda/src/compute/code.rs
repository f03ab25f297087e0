//! What a kernel does, by its code.

use core::ffi::{CStr, c_char};
use cubecl_core::server::KernelResource;
use cubecl_server::kernel::BufferIOAttr;
use std::sync::Arc;

/// Whether it waits by itself for what was launched before it; see [`overlap`](super::overlap).
pub(crate) fn waits(ptx: &[c_char]) -> bool {
    contains(ptx, b"griddepcontrol.wait")
}

/// Whether it may store through a tensor map: the tensor copies and reductions from shared memory are named so.
pub(crate) fn stores_through_maps(ptx: &[c_char]) -> bool {
    contains(ptx, b".global.shared")
}

/// What a kernel that stores through no tensor map does with its buffers. The compiler cannot see what is behind a map and
/// answers that it is written. A launch that is refused, for a tile larger than a map can have, would then leave
/// the inputs unreadable, and refuse whatever reads them afterwards: each later candidate of a tune, then the program.
/// A kernel that does not compile has no code to tell; its inputs behind maps still count as written.
pub(crate) fn read_behind_maps(
    io: Arc<[BufferIOAttr]>,
    resources: &[KernelResource],
) -> Arc<[BufferIOAttr]> {
    let is_map = |resource: &KernelResource| matches!(resource, KernelResource::TensorMap(_));
    if !resources.iter().any(is_map) {
        return io;
    }
    let known = |(index, io): (usize, &BufferIOAttr)| match resources.get(index) {
        Some(resource) if is_map(resource) => BufferIOAttr::ReadOnly,
        _ => *io,
    };
    io.iter().enumerate().map(known).collect()
}

fn contains(ptx: &[c_char], code: &[u8]) -> bool {
    // SAFETY: what is handed to the driver ends with a null.
    let text = unsafe { CStr::from_ptr(ptx.as_ptr()) };
    text.to_bytes().windows(code.len()).any(|some| some == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_to_shared_memory_is_no_store() {
        let stores = |code: &CStr| {
            // SAFETY: as long as the text, whose null is the last of them.
            stores_through_maps(unsafe {
                core::slice::from_raw_parts(code.as_ptr(), code.to_bytes_with_nul().len())
            })
        };
        assert!(!stores(c"cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2}], [%r3];"));
        assert!(!stores(c"cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%rd1, {%r2}];"));
        assert!(stores(c"cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%rd1, {%r2}], [%r1];"));
        assert!(stores(c"cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%rd1, {%r2}], [%r1];"));
    }
}
