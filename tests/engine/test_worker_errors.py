"""What a user sees of an error, wherever it was raised."""

import pytest
from torch.utils.data import DataLoader, Dataset

from perception.engine.checkpoint import CheckpointError
from perception.engine.errors import UserError, run_cli


class Failing(Dataset):
    def __init__(self, kind, message):
        self.kind, self.message = kind, message

    def __len__(self):
        return 4

    def __getitem__(self, index):
        try:
            raise UserError("a cause that is another error of the user's")
        except UserError as error:
            raise self.kind(self.message) from error


@pytest.mark.parametrize("kind", [UserError, CheckpointError])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("message", ["mask a.png has 3 x 2 pixels: too few", "Caught nothing: fish.\nand more"])
def test_an_error_from_a_loaders_worker_is_its_sentence(kind, workers, message):
    def main():
        for _ in DataLoader(Failing(kind, message), num_workers=workers):
            pass

    with pytest.raises(SystemExit) as stopped:
        run_cli(main)
    assert stopped.value.code == f"error: {message}"


def test_statuses(capsys):
    def interrupted():
        raise KeyboardInterrupt

    for main, code in ((lambda: None, None), (lambda: 3, 3), (interrupted, 130)):
        with pytest.raises(SystemExit) as stopped:
            run_cli(main)
        assert stopped.value.code == code
    assert capsys.readouterr().err == "interrupted\n"
