use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;

use super::{LinearOps, Products, generic};
use crate::ops::flex::{
    Matrix, MatrixMut, Real, contiguous, multiply_parallel, new_tensor, owned_storage, slice,
    transposed_vector_products,
};
use crate::ops::primitive::{rounded, with_last};

impl LinearOps for Flex {
    fn packed_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, _: Products) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => forward::<f32>(x, weight),
            DType::F64 => forward::<f64>(x, weight),
            _ => generic::forward::<Self>(x, weight),
        }
    }

    fn packed_linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        _: Products,
    ) -> FloatTensor<Self> {
        use burn::backend::ops::FloatTensorOps;
        match x.dtype() {
            DType::F32 => forward_add::<f32>(x, weight, residual),
            DType::F64 => forward_add::<f64>(x, weight, residual),
            _ => Self::float_add(residual, generic::forward::<Self>(x, weight)),
        }
    }

    fn linear_input_gradient(gradient: FloatTensor<Self>, weight: FloatTensor<Self>, _: Products) -> FloatTensor<Self> {
        match gradient.dtype() {
            DType::F32 => input_gradient::<f32>(gradient, weight),
            DType::F64 => input_gradient::<f64>(gradient, weight),
            _ => generic::input_gradient::<Self>(gradient, weight),
        }
    }

    fn linear_weight_gradient(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        dtype: DType,
        _: Products,
    ) -> FloatTensor<Self> {
        let d_weight = match gradient.dtype() {
            DType::F32 => weight_gradient::<f32>(gradient, x),
            DType::F64 => weight_gradient::<f64>(gradient, x),
            _ => generic::weight_gradient::<Self>(gradient, x),
        };
        rounded::<Self>(d_weight, dtype)
    }
}

/// `to` = or += `x [rows, in] W [in, out]`. For a single row reading the weight decides, and the vector kernel is faster
/// than packing for a product; from two rows on it is not.
fn product<T: Real>(to: &mut [T], add: bool, x: &[T], weight: &[T], [rows, input, output]: [usize; 3]) {
    if rows == 1 {
        transposed_vector_products(to, add, x, weight, rows, input, output);
    } else {
        let (x, weight) = (Matrix::new(x, rows, input, input), Matrix::new(weight, input, output, output));
        multiply_parallel(&mut MatrixMut::new(to, rows, output, output), add, T::one(), x, weight);
    }
}

fn dimensions(x: &FloatTensor<Flex>, weight: &FloatTensor<Flex>) -> [usize; 3] {
    let [input, output] = weight.shape().dims();
    let shape = x.shape();
    assert!(shape[shape.num_dims() - 1] == input, "linear: x {shape:?} does not fit weight [{input}, {output}]");
    [shape.num_elements() / input, input, output]
}

fn forward<T: Real>(x: FloatTensor<Flex>, weight: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let (x, weight) = (contiguous(x), contiguous(weight));
    let sizes @ [rows, _, output] = dimensions(&x, &weight);
    let mut to = vec![T::zero(); rows * output];
    product(&mut to, false, slice(&x), slice(&weight), sizes);
    new_tensor(to, with_last(x.shape(), output))
}

fn forward_add<T: Real>(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    residual: FloatTensor<Flex>,
) -> FloatTensor<Flex> {
    let (x, weight, mut to) = (contiguous(x), contiguous(weight), owned_storage(residual));
    let sizes = dimensions(&x, &weight);
    assert!(to.shape() == with_last(x.shape(), sizes[2]), "linear_add: the residual has another shape than the result");
    product(to.storage_mut::<T>(), true, slice(&x), slice(&weight), sizes);
    to
}

fn input_gradient<T: Real>(gradient: FloatTensor<Flex>, weight: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let (gradient, weight) = (contiguous(gradient), contiguous(weight));
    let [input, output] = weight.shape().dims();
    let rows = gradient.shape().num_elements() / output;
    let mut to = vec![T::zero(); rows * input];
    multiply_parallel(
        &mut MatrixMut::new(&mut to, rows, input, input),
        false,
        T::one(),
        Matrix::new(slice(&gradient), rows, output, output),
        Matrix::new(slice(&weight), input, output, output).transposed(),
    );
    new_tensor(to, with_last(gradient.shape(), input))
}

fn weight_gradient<T: Real>(gradient: FloatTensor<Flex>, x: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let (gradient, x) = (contiguous(gradient), contiguous(x));
    let last = |tensor: &FloatTensor<Flex>| tensor.shape()[tensor.shape().num_dims() - 1];
    let (input, output) = (last(&x), last(&gradient));
    let rows = x.shape().num_elements() / input;
    let mut to = vec![T::zero(); input * output];
    multiply_parallel(
        &mut MatrixMut::new(&mut to, input, output, output),
        false,
        T::one(),
        Matrix::new(slice(&x), rows, input, input).transposed(),
        Matrix::new(slice(&gradient), rows, output, output),
    );
    new_tensor(to, [input, output])
}
