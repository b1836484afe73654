"""LLVM instructions that Numba offers no Python function for."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from instahide.utils.numba_jit import Array

#: Bytes of a cache line.
LINE = 64
#: Values that `copy_mirrored` reverses at a time: a register of 8-bit values.
LANES = 16


@intrinsic
def copy_mirrored(_: Array, target: Array, to: Array, source: Array, begin: Array) -> Array:
    """Copy `LANES` values of ``source`` from ``begin`` in reverse order to ``target`` from ``to``.

    Both arrays are flat, and bounds are not checked. Numba does not vectorize the equivalent loop
    over a line, because it is too short.
    """

    def generate(context: Array, builder: Array, signature: Array, arguments: Array) -> Array:
        read = _address(context, builder, signature.args[2], *arguments[2:])
        write = _address(context, builder, signature.args[0], *arguments[:2])
        several = ir.VectorType(read.type.pointee, LANES)
        # Aligned like single values.
        size = context.get_abi_sizeof(read.type.pointee)
        values = builder.load(builder.bitcast(read, several.as_pointer()), align=size)
        turned = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(range(LANES))[::-1])
        values = builder.shuffle_vector(values, ir.Constant(several, ir.Undefined), turned)
        builder.store(values, builder.bitcast(write, several.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(target, types.uintp, source, types.uintp), generate


@intrinsic
def prefetch(_: Array, array: Array, place: Array) -> Array:
    """Prefetch the cache line of ``place`` in the flat ``array``, without waiting for it.

    A place out of bounds is harmless.
    """

    def generate(context: Array, builder: Array, signature: Array, arguments: Array) -> Array:
        address = _address(context, builder, signature.args[0], *arguments)
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        # For reading, into the first-level cache, as data.
        how = [ir.Constant(number, flag) for flag in (0, 3, 1)]
        builder.call(prefetch, [builder.bitcast(address, pointer), *how])
        return context.get_dummy_value()

    return types.void(array, types.uintp), generate


def _address(context: Array, builder: Array, kind: Array, array: Array, place: Array) -> Array:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [place])
