//! What a kernel does, by its code.

use core::ffi::{CStr, c_char};
use cubecl_core::server::KernelResource;
use cubecl_server::kernel::BufferIOAttr;
use std::sync::Arc;

/// What is read of a kernel's code when it is loaded.
#[derive(Debug)]
pub(crate) struct Code {
    /// Whether it waits by itself for what was launched before it; see [`overlap`](super::overlap).
    pub waits: bool,
    /// Whether it may store through a tensor map.
    stores_through_maps: bool,
}

impl Code {
    /// Reads what is handed to the driver.
    pub fn new(ptx: &[c_char]) -> Self {
        // SAFETY: it ends with a null.
        Self::of(&unsafe { CStr::from_ptr(ptx.as_ptr()) }.to_string_lossy())
    }

    fn of(ptx: &str) -> Self {
        Self {
            waits: ptx.contains("griddepcontrol.wait"),
            // Copies and reductions from shared memory to a tensor are named so.
            stores_through_maps: ptx.contains(".global.shared"),
        }
    }

    /// What the kernel does with its buffers, of which the compiler answers `io`. It cannot see what is behind a tensor map
    /// and answers that it is written. A launch that is refused, for a tile larger than a map can have, would then leave
    /// the inputs unreadable, and refuse whatever reads them afterwards: each later candidate of a tune, then the program.
    /// A kernel that does not compile has no code to tell; its inputs behind maps still count as written.
    pub fn io(&self, io: Arc<[BufferIOAttr]>, resources: &[KernelResource]) -> Arc<[BufferIOAttr]> {
        let is_map = |resource: &KernelResource| matches!(resource, KernelResource::TensorMap(_));
        if self.stores_through_maps || !resources.iter().any(is_map) {
            return io;
        }
        let known = |(index, io): (usize, &BufferIOAttr)| match resources.get(index) {
            Some(resource) if is_map(resource) => BufferIOAttr::ReadOnly,
            _ => *io,
        };
        io.iter().enumerate().map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_to_shared_memory_is_no_store() {
        let stores = |ptx| Code::of(ptx).stores_through_maps;
        assert!(!stores(
            "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2}], [%r3];"
        ));
        assert!(!stores("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%rd1, {%r2}];"));
        assert!(stores("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%rd1, {%r2}], [%r1];"));
        assert!(stores("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%rd1, {%r2}], [%r1];"));
    }
}
