//! `gpu_asm!` as inline PTX.

use crate::prelude::*;
use cubecl_core::ir::dialect::{InlineAsmOp, MemoryClobbers};

#[op_interface_impl]
impl ToLLVMDialect for InlineAsmOp {
    fn rewrite(
        &self,
        ctx: &mut Context,
        rewriter: &mut DialectConversionRewriter,
        _operands_info: &OperandsInfo,
    ) -> Result<()> {
        let operation = self.get_operation();
        let inputs = self.inputs(ctx);
        let results = self.results(ctx);
        assert!(results.len() <= 1, "inline PTX has one result at most");

        // Results come before inputs both here and in the template, which numbers them alike.
        let mut constraints = vec![];
        let mut result_ty = VoidType::get(ctx).into();
        for result in &results {
            let ty = result.get_type(ctx);
            result_ty = cube_type_to_llvm(ctx, ty);
            constraints.push(format!("={}", constraint(ctx, result_ty)));
        }
        for input in &inputs {
            let ty = input.get_type(ctx);
            let ty = cube_type_to_llvm(ctx, ty);
            constraints.push(constraint(ctx, ty).to_string());
        }
        if !matches!(*self.memory_clobbers(ctx), MemoryClobbers::Nomem) {
            constraints.push("~{memory}".to_string());
        }

        let template = self.asm(ctx).as_str().to_owned();
        let volatile = !self.pure(ctx);
        let constraints = constraints.join(",");
        let asm = llvm::InlineAsmOp::new(ctx, result_ty, inputs, &template, &constraints, volatile);
        rewriter.insert_op(ctx, &asm);
        if results.is_empty() {
            rewriter.erase_operation(ctx, operation);
        } else {
            let value = asm.get_result(ctx);
            rewriter.replace_operation_with_values(ctx, operation, vec![value]);
        }
        Ok(())
    }
}

/// The register class of a type, as CUDA's inline PTX names it.
fn constraint(ctx: &Context, ty: TypeHandle) -> char {
    let shown = ty.disp(ctx).to_string();
    let ty = ty.deref(ctx);
    if let Some(int) = ty.downcast_ref::<IntegerType>() {
        match int.width() {
            16 => 'h',
            32 => 'r',
            64 => 'l',
            _ => panic!("inline PTX has no registers for `{shown}`"),
        }
    } else if ty.is::<FP32Type>() {
        'f'
    } else if ty.is::<FP64Type>() {
        'd'
    } else if ty.is::<LlvmPointerType>() {
        'l'
    } else {
        panic!("inline PTX has no registers for `{shown}`")
    }
}
