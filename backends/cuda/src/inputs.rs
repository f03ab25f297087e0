//! What a recorded step reads, put in place by a kernel that CubeCL does not prepare: its preparation takes the host longer than
//! many a launch, and a replayed step of a small model waits for it (docs/results/h200.md).

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::sync::{Mutex, PoisonError};

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::{External, GpuResource};
use cubecl::ir::attributes::BufferIOAttr;
use cubecl::prelude::*;
use cubecl::server::KernelArguments;
use cudarc::driver::result as driver;
use cudarc::driver::sys::{CUfunction, CUstream};

use crate::stream::{context, is_cuda, refused};

/// The name its launches are counted under.
const KERNEL: &str = "recorded_input_place";

/// Units of a cube.
const UNITS: u32 = 256;

/// `held[i / columns * apart + i % columns] = ids[i]` for `i < elements`, and `position[0] = at`; all in 32 bits.
const CODE: &str = "
.version 6.0
.target sm_50
.address_size 64
.visible .entry recorded_input_place(
    .param .u64 ids, .param .u64 held, .param .u64 position,
    .param .u32 elements, .param .u32 columns, .param .u32 apart, .param .u32 at)
{
    .reg .pred %beyond, %other;
    .reg .u32 %i, %cube, %units, %count, %columns, %row, %column, %apart, %value;
    .reg .u64 %from, %to, %offset;
    mov.u32 %i, %tid.x;
    mov.u32 %cube, %ctaid.x;
    mov.u32 %units, %ntid.x;
    mad.lo.u32 %i, %cube, %units, %i;
    setp.ne.u32 %other, %i, 0;
    @%other bra ids_of_units;
    ld.param.u64 %to, [position];
    ld.param.u32 %value, [at];
    st.global.u32 [%to], %value;
ids_of_units:
    ld.param.u32 %count, [elements];
    setp.ge.u32 %beyond, %i, %count;
    @%beyond bra end;
    ld.param.u64 %from, [ids];
    mul.wide.u32 %offset, %i, 4;
    add.u64 %from, %from, %offset;
    ld.global.u32 %value, [%from];
    ld.param.u32 %columns, [columns];
    div.u32 %row, %i, %columns;
    rem.u32 %column, %i, %columns;
    ld.param.u32 %apart, [apart];
    mad.lo.u32 %column, %row, %apart, %column;
    ld.param.u64 %to, [held];
    mul.wide.u32 %offset, %column, 4;
    add.u64 %to, %to, %offset;
    st.global.u32 [%to], %value;
end:
    ret;
}
\0";

/// The kernel in a device's primary context; it lives as long as the process.
#[derive(Clone, Copy)]
struct Loaded(CUfunction);

// SAFETY: a function may be launched from any thread.
unsafe impl Send for Loaded {}
// SAFETY: nothing changes it.
unsafe impl Sync for Loaded {}

/// By the device's number.
static LOADED: Mutex<BTreeMap<u16, Result<Loaded, String>>> = Mutex::new(BTreeMap::new());

/// `ids [rows, columns]`, row by row without gaps, into `held [rows, columns]`, and `at` into `position [1]`. `Err` if the
/// device is not CUDA's, numbers do not lie so or have other than 32 bits, places need more, or the kernel cannot be loaded; nothing
/// is launched then.
pub fn place(ids: &CubeTensor, held: &CubeTensor, position: &CubeTensor, at: usize) -> Result<(), String> {
    if !is_cuda(&held.client) {
        return Err("the device is not CUDA's".to_owned());
    }
    let (lies, strides) = (held.shape() == ids.shape() && ids.is_contiguous(), held.meta.strides());
    if !lies || strides[1] != 1 || position.shape().num_elements() != 1 {
        return Err("numbers do not lie row by row".to_owned());
    }
    if [ids, held, position].iter().any(|tensor| tensor.dtype != DType::I32) {
        return Err("numbers are not of 32 bits".to_owned());
    }
    let ([rows, columns], apart) = (ids.shape().dims::<2>(), strides[0]);
    let small = |number: usize| u32::try_from(number).map_err(|_| "numbers are too large for 32 bits".to_owned());
    let numbers = [small(rows * columns)?, small(columns)?, small(apart)?, small(at)?];
    // The farthest place, too.
    small(rows * apart)?;
    let kernel = loaded(held.client.service_id().device.index_id)?;
    let io = [(ids, BufferIOAttr::ReadOnly), (held, BufferIOAttr::WriteOnly), (position, BufferIOAttr::WriteOnly)];
    let arguments = io.into_iter().fold(KernelArguments::new(), |arguments, (tensor, io)| {
        arguments.with_buffer_io(tensor.handle.clone().binding(), io)
    });
    let enqueue = Box::new(move |buffers: &[GpuResource], stream: CUstream| enqueue(kernel, buffers, numbers, stream));
    held.client.launch(Box::new(External { name: KERNEL, enqueue }), CubeCount::new_single(), arguments);
    Ok(())
}

fn enqueue(kernel: Loaded, buffers: &[GpuResource], mut numbers: [u32; 4], stream: CUstream) -> Result<(), String> {
    let mut addresses = [0, 1, 2].map(|which: usize| buffers[which].ptr);
    let [ids, held, position] = addresses.each_mut().map(|address| std::ptr::from_mut(address).cast::<c_void>());
    let cubes = numbers[0].div_ceil(UNITS).max(1);
    let [elements, columns, apart, at] = numbers.each_mut().map(|number| std::ptr::from_mut(number).cast::<c_void>());
    let mut arguments = [ids, held, position, elements, columns, apart, at];
    // SAFETY: the arguments are those of the code, and `place` has seen that the buffers hold what they reach; what the stream
    // gets later waits.
    unsafe { driver::launch_kernel(kernel.0, (cubes, 1, 1), (UNITS, 1, 1), 0, stream, &mut arguments) }.map_err(refused)
}

/// The kernel on a device.
fn loaded(device: u16) -> Result<Loaded, String> {
    let load = || {
        context(device)?;
        // SAFETY: the code ends with a zero.
        let module = unsafe { driver::module::load_data(CODE.as_ptr().cast()) }.map_err(refused)?;
        let name = CString::new(KERNEL).expect("a name without zeros");
        // SAFETY: the module was just loaded and stays.
        unsafe { driver::module::get_function(module, name) }.map(Loaded).map_err(refused)
    };
    LOADED.lock().unwrap_or_else(PoisonError::into_inner).entry(device).or_insert_with(load).clone()
}
