import pytest
import torch

from querypose.modeling.dense.peaks import find_peaks, kernel_for_size


def test_peaks_come_map_by_map_and_highest_first():
    scores = torch.zeros(2, 8, 9)
    scores[0, 2, 2], scores[0, 6, 7], scores[1, 0, 0] = 0.5, 0.9, 0.3
    peaks = find_peaks(scores, kernel=3, max_peaks=5)
    assert peaks.tolist() == [[0, 6, 7], [0, 2, 2], [1, 0, 0]]


def test_equal_values_stay_in_row_major_order_and_the_count_is_limited_per_map():
    scores = torch.zeros(2, 9, 9)
    scores[:, ::4, ::4] = 0.5
    peaks = find_peaks(scores, kernel=3, max_peaks=4)
    first = [[0, 0], [0, 4], [0, 8], [4, 0]]
    assert peaks.tolist() == [[index, *cell] for index in range(2) for cell in first]


def test_a_lower_neighbor_within_the_kernel_is_no_peak():
    scores = torch.zeros(1, 7, 7)
    scores[0, 3, 1], scores[0, 3, 3] = 0.5, 0.6
    assert len(find_peaks(scores, kernel=3, max_peaks=9)) == 2
    assert find_peaks(scores, kernel=5, max_peaks=9).tolist() == [[0, 3, 3]]


def test_peaks_exceed_the_least_value():
    scores = torch.zeros(1, 7, 7)
    scores[0, 1, 1], scores[0, 5, 5] = 0.01, 0.011
    assert find_peaks(scores, kernel=3, max_peaks=9).tolist() == [[0, 5, 5]]
    assert find_peaks(-scores, kernel=3, max_peaks=9).shape == (0, 3)


@pytest.mark.parametrize(
    ("size", "kernel"), [((200, 200), 3), ((200, 201), 5), ((300, 300), 5), ((240, 361), 7)]
)
def test_kernel_grows_with_the_map(size, kernel):
    assert kernel_for_size(size) == kernel
