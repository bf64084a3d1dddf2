"""Which GPUs are planned for, from what engines of real machines list."""

import pytest

from launcher.engine.device_list import Device, parse_devices

MIB = 2**20


def listed(rows: str, log: str = "") -> str:
    """What an engine prints: each row of the table is `NAME: DESCRIPTION, MiB`."""
    found = [row.strip().rsplit(", ", 1) for row in rows.strip().splitlines()]
    return log + "Available devices:\n" + "".join(f"  {name} ({mib} MiB, {mib} MiB free)\n" for name, mib in found)


def names(text: str) -> tuple[list[str], list[str], bool]:
    """Those that are used and not used, and whether what is used has the host's memory."""
    found = parse_devices(text)
    integrated = any(one.integrated for one in found.used)
    return [one.name for one in found.used], [one.name for one in found.unused], integrated


def test_a_row_is_a_device_and_an_accelerator_without_memory_is_none() -> None:
    text = (
        "ggml_cuda_init: found 1 CUDA devices:\nAvailable devices:\n"
        "  CUDA1: NVIDIA RTX A2000 (12GB) (11900 MiB, 11000 MiB free)\n  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n"
    )
    device = Device(
        name="CUDA1", description="NVIDIA RTX A2000 (12GB)", total_bytes=11900 * MIB, free_bytes=11000 * MIB
    )
    assert parse_devices(text).used == (device,)
    assert parse_devices("Available devices:\n  (none)\n").used == ()


@pytest.mark.parametrize(
    ("rows", "used"),
    [
        # one card under two names
        ("CUDA0: NVIDIA GeForce RTX 4090, 24080\nVulkan0: NVIDIA GeForce RTX 4090, 24564", "CUDA0"),
        ("ROCm0: AMD Radeon RX 7900 XTX, 24560\nVulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31), 24560", "ROCm0"),
        ("Vulkan0: Radeon RX 7900 XTX, 24560\nROCm0: AMD Radeon RX 7900 XTX, 24560", "ROCm0"),
        ("ROCm0: Card Series, 24560\nVulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31), 24560", "ROCm0"),
        ("ROCm0: AMD Radeon Graphics, 24560\nVulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31), 24560", "ROCm0"),
        ("SYCL0: Intel(R) Arc(TM) A770 Graphics, 15473\nVulkan0: Intel(R) Arc(tm) A770 Graphics (DG2), 16032", "SYCL0"),
        (
            "CUDA0: NVIDIA GeForce RTX 4090, 24080\nVulkan0: Microsoft Direct3D12 (NVIDIA GeForce RTX 4090), 24564",
            "CUDA0",
        ),
        # several cards of one kind, also where one is hidden from the first backend
        ("CUDA0: A 4090, 24080\nCUDA1: A 4090, 24080\nVulkan0: A 4090, 24564\nVulkan1: A 4090, 24564", "CUDA0 CUDA1"),
        ("CUDA0: A 4090, 24080\nVulkan0: A 4090, 24564\nVulkan1: A 4090, 24564", "CUDA0"),
        ("Vulkan0: AMD Radeon Pro Vega II Duo, 32752\nVulkan1: AMD Radeon Pro Vega II Duo, 32752", "Vulkan0 Vulkan1"),
        # other cards stay
        ("ROCm0: AMD Radeon RX 9070 XT, 16304\nVulkan0: AMD Radeon RX 480 Graphics, 8192", "ROCm0 Vulkan0"),
        ("CUDA0: NVIDIA GTX 1060, 3019\nVulkan0: NVIDIA GTX 1060, 6144", "CUDA0 Vulkan0"),
        ("CUDA0: NVIDIA GeForce RTX 4090, 24080\nVulkan0: AMD Radeon RX 7900 XTX, 24560", "CUDA0 Vulkan0"),
        # a processor that draws is no GPU
        ("Vulkan0: llvmpipe (LLVM 20.1.2, 256 bits), 64000", ""),
    ],
)
def test_a_card_counts_once_and_several_of_a_kind_stay_several(rows: str, used: str) -> None:
    assert names(listed(rows)) == (used.split(), [], False)


def test_a_processor_that_draws_counts_where_it_was_asked_for() -> None:
    rows = listed("Vulkan0: llvmpipe (LLVM 20.1.2, 256 bits), 64000")
    assert parse_devices(rows).used == ()
    assert [one.name for one in parse_devices(rows, software=True).used] == ["Vulkan0"]


@pytest.mark.parametrize(
    "integrated",
    [
        "Intel(R) UHD Graphics 770 (ADL-S GT1)",
        "Intel(R) HD Graphics 620",
        "Intel(R) Iris(R) Xe Graphics (TGL GT2)",
        "Intel(R) Arc(TM) Graphics (MTL)",
        "Intel(R) Arc(TM) 140V GPU (16GB)",
        "Intel(R) Graphics (LNL)",
        "AMD Radeon(TM) Graphics",
        "AMD Radeon Graphics (RADV RAPHAEL_MENDOCINO)",
        "AMD Ryzen 7 9800X3D 8-Core Processor (RADV RAPHAEL_MENDOCINO)",
        "AMD Radeon 780M",
        "Radeon 8060S Graphics (RADV GFX1151)",
        "AMD Radeon RX Vega 10 Graphics",
        "AMD Custom GPU 0405 (RADV VANGOGH)",
        "NVIDIA GB10",
        "Orin",
        "NVIDIA Thor",
        "Apple M2 Max",
        "Mali-G610",
    ],
)
def test_an_integrated_gpu_is_used_only_where_there_is_no_other(integrated: str) -> None:
    alone = listed(f"Vulkan1: {integrated}, 48020")
    assert names(alone) == (["Vulkan1"], [], True)
    beside = listed(f"Vulkan1: {integrated}, 48020\nCUDA0: NVIDIA GeForce RTX 4060, 7806")
    assert names(beside) == (["CUDA0"], ["Vulkan1"], False)


@pytest.mark.parametrize(
    "card",
    [
        "NVIDIA GeForce RTX 4090",
        "NVIDIA GH200 480GB",
        "Tesla V100-SXM2-16GB",
        "AMD Radeon RX 6800M",
        "AMD Radeon RX Vega 64",
        "AMD Radeon Pro W7900",
        "AMD Instinct MI300X",
        "Intel(R) Arc(TM) A770 Graphics (DG2)",
        "Intel(R) Arc(TM) B580 Graphics (BMG G21)",
        "Intel(R) Graphics (BMG G21)",
        "Intel(R) Iris(R) Xe MAX Graphics (DG1)",
        "Intel(R) Data Center GPU Max 1100",
    ],
)
def test_a_card_has_memory_of_its_own(card: str) -> None:
    assert names(listed(f"Vulkan0: {card}, 16000")) == (["Vulkan0"], [], False)


@pytest.mark.parametrize("stamp", ["", "0.00.191.856 D "])
def test_vulkan_s_own_word_on_its_memory_counts_more_than_a_name(stamp: str) -> None:
    rows = "Vulkan0: AMD Radeon Graphics, 24560\nVulkan1: Some New Thing, 48020"
    log = (
        f"{stamp}ggml_vulkan: 0 = AMD Radeon Graphics (radv) | uma: 0 | fp16: 1 | warp size: 64\n"
        f"{stamp}ggml_vulkan: 1 = Some New Thing (x) | uma: 1 | fp16: 1\n"
    )
    assert names(listed(rows, log)) == (["Vulkan0"], ["Vulkan1"], False)


def test_one_integrated_gpu_of_two_backends_is_one_whatever_they_make_of_its_memory() -> None:
    rows = "ROCm0: AMD Radeon Graphics, 512\nVulkan0: Radeon 8060S Graphics (RADV GFX1151), 88000"
    assert names(listed(rows)) == (["Vulkan0"], [], True)
