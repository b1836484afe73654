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
def stream(_: Array, target: Array, to: Array, source: Array) -> Array:
    """Copy the first 32 values of ``source`` to ``target`` from ``to``, past the caches.

    Values have 32 bits, and ``to`` is at the start of a cache line. Bounds are not checked.
    """

    def generate(context: Array, builder: Array, signature: Array, arguments: Array) -> Array:
        first = context.get_constant(types.uintp, 0)
        read = _address(context, builder, signature.args[2], arguments[2], first)
        write = _address(context, builder, signature.args[0], *arguments[:2])
        line = ir.VectorType(read.type.pointee, LINE // 4)
        flag = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        for number in range(2):
            at = ir.Constant(ir.IntType(32), number)
            place = builder.gep(builder.bitcast(read, line.as_pointer()), [at])
            values = builder.load(place, align=4)
            place = builder.gep(builder.bitcast(write, line.as_pointer()), [at])
            builder.store(values, place, align=LINE).set_metadata("nontemporal", flag)
        return context.get_dummy_value()

    return types.void(target, types.uintp, source), generate


@intrinsic
def fence(_: Array) -> Array:
    """Make what `stream` has written visible to other threads."""

    def generate(context: Array, builder: Array, signature: Array, arguments: Array) -> Array:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


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


@intrinsic
def high_product(_: Array, one: Array, other: Array) -> Array:
    """The upper 64 bits of the product of two unsigned numbers of 64 bits."""

    def generate(context: Array, builder: Array, signature: Array, arguments: Array) -> Array:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(value, wide) for value in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


def _address(context: Array, builder: Array, kind: Array, array: Array, place: Array) -> Array:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [place])
