"""Compile the kernels that search on the CPU; all else about the package is in pyproject.toml."""

from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

NATIVE = Path("spade_faiss/search/native")


class BuildKernels(build_ext):
    """Build the kernels as one plain library, or go on without them where that fails."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name no version of Python: the library serves all of them."""
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def build_extension(self, ext: Any) -> None:
        """Compile and link, or say that FAISS will search and leave no older library."""
        try:
            super().build_extension(ext)
        except (BaseError, CCompilerError) as error:
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
            self.warn(f"FAISS will search: kernels could not be compiled by GCC for C++: {error}")

    def copy_extensions_to_source(self) -> None:
        """Copy what was built for `pip install -e`; what was built before may not fit any more."""
        (NATIVE / "_kernels.so").unlink(missing_ok=True)
        super().copy_extensions_to_source()


class Wheel(bdist_wheel):
    """A wheel for any Python 3 on this kind of machine."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of the Python, its binary interface, and the machine."""
        return "py3", "none", super().get_tag()[2]


kernels = Extension(
    "spade_faiss.search.native._kernels",
    sorted(map(str, NATIVE.glob("*.cpp"))),
    depends=["setup.py", *sorted(map(str, NATIVE.glob("*.h")))],
    # The proofs in kernel.h are of IEEE's rules, whatever CFLAGS says.
    extra_compile_args=[
        "-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-fno-fast-math",
        # With these, nothing of C++'s own library is needed, and C's linker will do.
        "-fno-exceptions", "-fno-rtti",
        # GCC 12 says these of its own headers.
        "-Wno-uninitialized", "-Wno-maybe-uninitialized",
    ],
    language="c",
    libraries=["m", "pthread"],
    optional=True,
)  # fmt: skip

setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel})
