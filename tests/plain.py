"""Threefry in Python's integers, which shares no line with the package."""

FULL = 0xFFFFFFFF


def plain_threefry(key, counter):
    """The 20 rounds in Python's integers, after the paper and not after the package."""
    rotations = [13, 15, 26, 6, 17, 29, 16, 24]
    schedule = [key[0], key[1], 0x1BD11BDA ^ key[0] ^ key[1]]
    x, y = (counter[0] + schedule[0]) & FULL, (counter[1] + schedule[1]) & FULL
    for step in range(20):
        x = (x + y) & FULL
        distance = rotations[step % 8]
        y = ((y << distance) & FULL) | (y >> (32 - distance))
        y ^= x
        if step % 4 == 3:
            injection = step // 4 + 1
            x = (x + schedule[injection % 3]) & FULL
            y = (y + schedule[(injection + 1) % 3] + injection) & FULL
    return x, y
