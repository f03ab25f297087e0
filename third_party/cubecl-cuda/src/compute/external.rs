//! Work that another library launches on CubeCL's stream, in its memory, and into its graphs.

use crate::compute::storage::gpu::GpuResource;
use cubecl_core::ir::ElemType;
use cubecl_server::id::KernelId;
use cubecl_server::kernel::{CubeKernel, KernelDefinition, KernelMetadata};
use cudarc::driver::sys::CUstream;

/// Launches on the stream, given the buffers of the launch in their order.
pub type Enqueue = dyn Fn(&[GpuResource], CUstream) -> Result<(), String> + Send + Sync;

/// A kernel that is launched instead of compiled. What it reads and writes is what the arguments
/// of its launch declare.
pub struct External {
    /// Under which launches are observed.
    pub name: &'static str,
    /// Launches it.
    pub enqueue: Box<Enqueue>,
}

impl KernelMetadata for External {
    fn name(&self) -> &'static str {
        self.name
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info(self.name)
    }

    fn address_type(&self) -> ElemType {
        ElemType::UInt(cubecl_core::ir::UIntKind::U64)
    }
}

impl CubeKernel for External {
    fn define(&self) -> KernelDefinition {
        unreachable!("the CUDA server launches it and compiles nothing")
    }
}
