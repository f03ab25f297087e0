use burn::tensor::{Bytes, Shape};
use burn_flex::{FlexTensor, Layout};

use super::Real;

/// The tensor with its elements in row-major order, copied only if they are not.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().contiguous_offsets().is_some() { tensor } else { tensor.to_contiguous() }
}

/// The elements of a tensor that went through [`contiguous`].
pub(crate) fn slice<T: Real>(tensor: &FlexTensor) -> &[T] {
    tensor.as_slice().expect("a contiguous tensor of the kernel's element type")
}

/// A tensor that owns `data`.
pub(crate) fn new_tensor<T: Real>(data: Vec<T>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(data), Layout::contiguous(shape.into()), T::dtype())
}

/// The tensor with storage of its own, to be written in place: the same one if nobody else holds it, else a copy.
pub(crate) fn owned_storage(tensor: FlexTensor) -> FlexTensor {
    let elements = tensor.layout().num_elements();
    let whole = tensor.layout().contiguous_offsets() == Some((0, elements))
        && tensor.bytes().len() == elements * tensor.dtype().size();
    if whole { tensor } else { tensor.to_contiguous() }
}
