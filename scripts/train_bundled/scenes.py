"""Scenes: heaps of leaves cut from tiles, turned, scaled, coloured and lit, with small defects on top,
seen by a camera.
"""

import math

import torch
import torch.nn.functional as F

from textures import DEFECTS, SHAPES, TILE, uniform

LEAVES = 5
ANGLES = 256


def outlines(shape, aspect, sharp, phase):
    """How far from its middle the edge of each leaf is, by angle, `[B, ANGLES]`; the others are `[B, 1]`."""
    a = torch.arange(ANGLES, device=shape.device)[None] * (2 * math.pi / ANGLES)
    step = 2 * math.pi / sharp
    ellipse = 1 / torch.sqrt(a.cos() ** 2 + (a.sin() / aspect) ** 2)
    box = 0.85 / torch.maximum(a.cos().abs(), a.sin().abs() / aspect)
    polygon = 0.8 / torch.cos(torch.remainder(a, step) - step / 2)
    star = 0.75 + 0.25 * torch.cos(sharp * a)
    blob = (
        0.8
        + 0.2 * torch.cos(2 * a + phase)
        + 0.15 * torch.cos(3 * a + 2.3 * phase)
        + 0.1 * torch.cos(5 * a + 4.1 * phase)
    )
    bar = 1 / torch.maximum(a.cos().abs() / 0.25, a.sin().abs() / 3)
    ground = torch.zeros_like(blob)
    shapes = [ground, ellipse, box, polygon, star, torch.ones_like(blob), blob, bar.expand_as(blob)]
    stack = torch.stack(shapes)
    return stack.gather(0, shape[None].expand(1, -1, ANGLES))[0]


def segment(y, x, y0, x0, y1, x1):
    """Distance from a segment."""
    dy, dx = y1 - y0, x1 - x0
    t = (((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx + 1e-6)).clamp(0, 1)
    return torch.sqrt((y - y0 - t * dy) ** 2 + (x - x0 - t * dx) ** 2 + 1e-6)


def scenes(g, tiles, B, S, device="cpu"):
    """Images [B, 3, S, S] in 0..1."""
    u = lambda low, high, *shape: uniform(
        g, low, high, (B, *shape, 1, 1) if not shape else (B, *shape), device
    )
    y, x = torch.meshgrid(
        torch.arange(S, device=device), torch.arange(S, device=device), indexing="ij"
    )
    y, x = y.float()[None] + 0.5, x.float()[None] + 0.5

    label = torch.zeros((B, S, S), dtype=torch.long, device=device)
    depth = torch.full((B, S, S), 99.0, device=device)
    local = torch.zeros((B, S, S, 2), device=device)
    number = torch.randint(0, LEAVES, (B, 1, 1), generator=g, device=device)
    for leaf in range(1, LEAVES):
        shape = torch.randint(1, len(SHAPES), (B, 1, 1), generator=g, device=device)
        size = S * 2 ** u(-3.0, -0.8)
        cy, cx, t = u(0, S), u(0, S), u(0, 2 * math.pi)
        p, q = x - cx, y - cy
        r = torch.sqrt(p * p + q * q)
        sharp = torch.randint(3, 8, (B, 1), generator=g, device=device).float()
        edge = outlines(shape[:, :, 0], 2 ** u(-0.8, 0.8)[:, 0], sharp, u(0, 6.28)[:, 0])
        a = (
            torch.remainder((torch.atan2(q, p) - t) * (ANGLES / (2 * math.pi)), ANGLES).long()
            % ANGLES
        )
        d = r - size * edge.gather(1, a.flatten(1)).view(B, S, S)
        d = torch.where(shape == 5, (d + 0.25 * size).abs() - 0.25 * size, d)
        top = (d < 0) & (leaf <= number)
        label = torch.where(top, leaf, label)
        # What lies beside an edge is as near to it as what lies on it.
        depth = torch.where(
            top, -d, torch.where(leaf <= number, torch.minimum(depth, d.clamp_min(0)), depth)
        )
        local = torch.where(top[..., None], torch.stack([p, q], -1) / size[..., None], local)

    pixel = lambda v: v.gather(1, label.flatten(1)).view(B, S, S)
    # Tiles.
    tile = torch.randint(len(tiles), (B, LEAVES), generator=g, device=device)
    turn, scale = u(0, 2 * math.pi, LEAVES), u(-0.7, 0.5, LEAVES)
    t, s = pixel(turn), torch.exp2(-pixel(scale))
    ty = (s * (t.cos() * y + t.sin() * x) + pixel(u(0, TILE, LEAVES))) % TILE
    tx = (s * (t.cos() * x - t.sin() * y) + pixel(u(0, TILE, LEAVES))) % TILE
    y0, x0 = ty.floor(), tx.floor()
    fy, fx = ty - y0, tx - x0
    y0, x0 = y0.long() % TILE, x0.long() % TILE
    y1, x1 = (y0 + 1) % TILE, (x0 + 1) % TILE
    n = pixel(tile) * (TILE * TILE)
    flat = tiles.view(-1)
    at = lambda yy, xx: flat[n + yy * TILE + xx].float()
    value = (
        (at(y0, x0) * (1 - fx) + at(y0, x1) * fx) * (1 - fy)
        + (at(y1, x0) * (1 - fx) + at(y1, x1) * fx) * fy
    ) / 255
    # Colours: between two of a leaf's own, now and then nearly the same.
    contrast = u(0.3, 1.0, LEAVES, 1)
    one = u(0, 1, LEAVES, 3)
    # As far away as there is room.
    two = one + contrast * torch.where(one < 0.5, 1 - one, -one) * u(0.6, 1, LEAVES, 3)
    if_grey = u(0, 1, LEAVES, 1) < 0.3
    one = torch.where(if_grey, one.mean(-1, keepdim=True), one)
    two = torch.where(if_grey, two.mean(-1, keepdim=True), two)
    value = value ** torch.exp2(pixel(u(-0.5, 0.5, LEAVES)))
    colour = lambda c: torch.stack([pixel(c[..., k]) for k in range(3)], 1)
    image = colour(one) * (1 - value[:, None]) + colour(two) * value[:, None]
    # Leaves are lit from a side, darker at the edge or outlined.
    lit = pixel(u(-0.6, 0.6, LEAVES)) * local[..., 0] + pixel(u(-0.6, 0.6, LEAVES)) * local[..., 1]
    outline = pixel(u(-1, 0.5, LEAVES).clamp_min(0) * 2) * torch.exp(-((depth / 1.5) ** 2))
    image = image * (1 + lit - outline).clamp(0.1, 2)[:, None]

    # Small defects.
    for _ in range(2):
        which = torch.randint(0, len(DEFECTS), (B, 1, 1), generator=g, device=device)
        cy, cx, t = u(0, S), u(0, S), u(0, 2 * math.pi)
        dy, dx = t.sin(), t.cos()
        length, width = u(4, 24), u(0.5, 1.6)
        line = segment(y, x, cy, cx, cy + length * dy, cx + length * dx)
        bend = [u(-0.9, 0.9) for _ in range(2)]
        crack, py, px, way = torch.full_like(line, 1e3), cy, cx, t
        for b in bend:
            way = way + b
            ny, nx = py + length / 2 * way.sin(), px + length / 2 * way.cos()
            crack = torch.minimum(crack, segment(y, x, py, px, ny, nx))
            py, px = ny, nx
        r = torch.sqrt((y - cy) ** 2 + (x - cx) ** 2)
        radius = u(1.0, 4.0)
        stain = torch.exp(-((r / (2.5 * radius)) ** 2))
        side = ((y - cy) * dy + (x - cx) * dx) / radius * torch.exp(-((r / (1.5 * radius)) ** 2))
        soft = lambda d, w: torch.sigmoid(3 * (w - d))
        cover = torch.stack(
            [
                torch.zeros_like(r),
                soft(line, width),
                soft(r, radius),
                stain,
                side,
                soft(crack, width * 0.8),
            ]
        )
        cover = cover.gather(0, which.expand_as(r)[None])[0]
        strength = u(0.25, 1.0)
        tint = u(0, 1, 3)[:, :, None, None]
        tint = torch.where(u(0, 1)[:, None] < 0.6, tint.mean(1, keepdim=True), tint)
        c = (cover * strength)[:, None]
        image = torch.where(
            (which == 4)[:, None], image * (1 + 0.8 * c), image * (1 - c) + tint * c
        )

    # What a camera does.
    image = image * (
        1 + u(-0.4, 0.4)[:, None] * (y / S - 0.5) + u(-0.4, 0.4)[:, None] * (x / S - 0.5)
    )
    grey = u(0, 1)[:, None] < 0.3
    image = torch.where(grey, image.mean(1, keepdim=True), image)
    image = (image - 0.5) * u(0.6, 1.2)[:, None] + 0.5 + u(-0.15, 0.15)[:, None]
    sigma = u(0.2, 0.8)[:, :, :, None]
    taps = torch.exp(-0.5 * (torch.arange(-2, 3, device=device) / sigma) ** 2)
    taps = (taps / taps.sum(-1, keepdim=True)).repeat_interleave(3, 0)
    flat = F.pad(image.reshape(1, B * 3, S, S), (2, 2, 2, 2), mode="replicate")
    flat = F.conv2d(flat, taps, groups=B * 3)
    image = F.conv2d(flat, taps.transpose(2, 3), groups=B * 3).view(B, 3, S, S)
    image = image + 0.03 * u(0, 1)[:, None] ** 2 * torch.randn(
        image.shape, generator=g, device=device
    )
    return image.clamp(0, 1)
