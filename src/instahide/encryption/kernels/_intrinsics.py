"""Instructions that Numba's compiler has, and that Python cannot ask for."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from instahide.utils.numba_jit import Array

#: Bytes that come into the cache together.
LINE = 64
#: Values that `copy_mirrored` turns round at a time: what one register holds of 8-bit ones.
LANES = 16


@intrinsic
def copy_mirrored(_: Array, target: Array, to: Array, source: Array, begin: Array) -> Array:
    """Copy the `LANES` values of ``source`` from ``begin`` to ``target`` from ``to``, last first.

    Both are flat, and nothing checks the places. Numba's compiler makes no such copy of a loop over
    a line, which is too short for it.
    """

    def generate(context: Array, builder: Array, signature: Array, arguments: Array) -> Array:
        read = _address(context, builder, signature.args[2], *arguments[2:])
        write = _address(context, builder, signature.args[0], *arguments[:2])
        several = ir.VectorType(read.type.pointee, LANES)
        # Aligned as single values are.
        size = context.get_abi_sizeof(read.type.pointee)
        values = builder.load(builder.bitcast(read, several.as_pointer()), align=size)
        turned = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(range(LANES))[::-1])
        values = builder.shuffle_vector(values, ir.Constant(several, ir.Undefined), turned)
        builder.store(values, builder.bitcast(write, several.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(target, types.uintp, source, types.uintp), generate


@intrinsic
def prefetch(_: Array, array: Array, place: Array) -> Array:
    """Bring the line with ``place`` of the flat ``array`` into the cache, without a wait for it.

    A place that is not there does no harm.
    """

    def generate(context: Array, builder: Array, signature: Array, arguments: Array) -> Array:
        address = _address(context, builder, signature.args[0], *arguments)
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        # To read, into the nearest cache, as data.
        how = [ir.Constant(number, flag) for flag in (0, 3, 1)]
        builder.call(prefetch, [builder.bitcast(address, pointer), *how])
        return context.get_dummy_value()

    return types.void(array, types.uintp), generate


def _address(context: Array, builder: Array, kind: Array, array: Array, place: Array) -> Array:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [place])
