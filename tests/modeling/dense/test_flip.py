import torch

from querypose.modeling.dense.flip import average_maps, mirror_images, mirror_poses


def test_a_cell_of_the_mirrored_image_lies_on_the_pixel_of_the_mirrored_cell():
    images = torch.arange(1, 513).float().expand(1, 3, 4, 512)
    mirrored = mirror_images(images)
    # Cell 117 = 127 - 10 of the mirrored image lies on what cell 10 lies on.
    assert mirrored[0, 0, 0, 4 * 117] == images[0, 0, 0, 4 * 10]
    assert mirrored.shape == images.shape
    assert (mirrored[..., -3:] == 0).all() and (mirrored[..., :-3] > 0).all()


def test_maps_of_both_views_are_averaged_in_the_frame_of_the_image():
    maps, mirrored = torch.zeros(1, 3, 1, 4), torch.zeros(1, 3, 1, 4)
    maps[0, 0, 0, 1], mirrored[0, 0, 0, 2] = 1, 3
    torch.testing.assert_close(average_maps(maps, mirrored)[0, 0, 0, 1], torch.tensor(2.0))
    swapped = average_maps(maps, mirrored, channels=(1, 0, 2))
    assert swapped[0, 0, 0, 1] == 0.5 and swapped[0, 1, 0, 1] == 1.5


def test_mirrored_poses_swap_sides_and_come_back():
    pose = torch.tensor([[[10.0, 3.0], [20.0, 4.0], [0.0, 5.0]]])
    mirrored = mirror_poses(pose, (0, 2, 1), width=128)
    assert mirrored.tolist() == [[[117, 3], [127, 5], [107, 4]]]
    torch.testing.assert_close(mirror_poses(mirrored, (0, 2, 1), width=128), pose)
