import itertools

import torch

from querypose.modeling.dense.ownership import owner_map


def test_smallest_area_owns_a_shared_cell_in_any_order():
    claims = torch.tensor([[True, True, False], [False, True, True], [True, True, False]])
    areas = torch.tensor([30.0, 10.0, 20.0])
    for order in itertools.permutations(range(3)):
        index = torch.tensor(order)
        owners = owner_map(claims[index], areas[index])
        assert index[owners].tolist() == [2, 1, 1]


def test_of_equal_areas_the_later_annotation_owns_the_cell():
    claims = torch.ones(3, 2, dtype=torch.bool)
    assert owner_map(claims, torch.tensor([5.0, 5.0, 9.0])).tolist() == [1, 1]


def test_unclaimed_cells_have_no_owner():
    assert owner_map(torch.zeros(2, 3, 4, dtype=torch.bool), torch.ones(2)).unique() == -1
    nobody = owner_map(torch.zeros(0, 3, 4, dtype=torch.bool), torch.zeros(0))
    assert nobody.shape == (3, 4) and (nobody == -1).all()
