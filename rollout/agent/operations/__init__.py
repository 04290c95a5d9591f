"""Operations: how a command is carried out, undone, canceled and reported."""
