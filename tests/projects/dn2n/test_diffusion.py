"""Editors by diffusion models, CLIP and BLIP, on tiny random ones that are written to a folder; where diffusers and
transformers are not installed, only what needs none of them."""

import json

import pytest
import torch
from torch import nn

from perception.engine.errors import UserError
from projects.dn2n.captions import BlipCaption
from projects.dn2n.diffusion import SharedAttention
from projects.dn2n.editors import EditorSettings, make_editor
from projects.dn2n.embeddings import make_embedding, to_clip

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SOURCE, TARGET = "a scene", "a snow scene"


class Attention(nn.Module):
    """What a processor uses of diffusers' layer of this name; the identity in place of its projections."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads
        self.to_q = self.to_k = self.to_v = nn.Identity()
        self.to_out = nn.ModuleList([nn.Identity(), nn.Identity()])

    def head_to_batch_dim(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1)

    def batch_to_head_dim(self, x):
        return x.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)

    def get_attention_scores(self, query, key, mask):
        return (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)


def test_shared_attention_takes_over_words_and_places():
    torch.manual_seed(0)
    places, words = torch.randn(4, 6, 8), torch.randn(4, 4, 8)
    layer, shared = Attention(2), SharedAttention([7, 1, 3, 9], [7, 1, 5, 3], 0.8, 0.4)

    def weights(context):
        query, key = (layer.head_to_batch_dim(part) for part in (places, context))
        return layer.get_attention_scores(query, key, None).unflatten(0, (4, 2))

    def applied(chosen, context):
        value = layer.head_to_batch_dim(context).unflatten(0, (4, 2))
        return layer.batch_to_head_dim((chosen @ value).flatten(0, 1))

    own = weights(words)
    expected = own.clone()
    expected[3][..., [0, 1, 3]] = own[2][..., [0, 1, 2]]  # 7, 1 and 3 are in both
    torch.testing.assert_close(shared(layer, places, words), applied(expected, words))
    alike = weights(places)
    expected = alike.clone()
    expected[3] = alike[2]
    torch.testing.assert_close(shared(layer, places), applied(expected, places))
    shared.progress = 0.5  # places are free, words are not yet
    torch.testing.assert_close(shared(layer, places), applied(alike, places))
    assert not torch.allclose(shared(layer, places, words), applied(own, words))
    shared.progress = 0.9
    torch.testing.assert_close(shared(layer, places, words), applied(own, words))


def write_words(folder):
    """Files of CLIP's tokenizer that knows single letters, and its vocabulary."""
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 16}))
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stable Diffusion of some thousand random weights, of 16 x 16 pixels."""
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("diffusion")
    words = write_words(out / "words")
    text = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=1, projection_dim=16,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip
    unet.conv_out.weight.data *= 0.1  # smooth along the trajectory, as trained ones are, and guided by texts
    for name, part in unet.named_modules():
        if name.endswith("attn2"):
            part.to_v.weight.data *= 30
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), latent_channels=4, norm_num_groups=4, sample_size=16,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    diffusers.StableDiffusionPipeline(
        vae=vae, unet=unet, scheduler=scheduler, text_encoder=transformers.CLIPTextModel(text),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(out / "words"), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(out / "weights")  # fmt: skip
    return out / "weights"


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 18, 16, generator=torch.Generator().manual_seed(0))


def null_text(folder, **settings):
    return make_editor(EditorSettings("null_text", weights=folder, steps=8, **settings))


def missed(editor, image):
    """By how much the guided way back from noise misses the latents of an image: mean squared difference."""
    with torch.no_grad():
        text, nothing = (editor._embedding(editor._tokens(words)) for words in (SOURCE, ""))
        trajectory = editor._inverted(editor._encoded(image[None, :, :16]), text)
        empty, latents = editor._null_texts(trajectory, text, nothing), trajectory[-1]
        for level in reversed(range(1, len(trajectory))):
            plain, guided = (editor._noise(latents, level, words) for words in (empty[level - 1], text))
            noise = plain + editor.settings.guidance_scale * (guided - plain)
            latents = editor._moved(latents, noise, level, level - 1)
    return float((latents - trajectory[0]).square().mean())


def test_null_texts_lead_back_to_the_image(folder, images):
    """Without guidance DDIM finds its own way back; with it the optimised embeddings do most of that."""
    assert missed(null_text(folder, inner_steps=0, guidance_scale=1.0), images[0]) < 0.01
    straight, led = (missed(null_text(folder, inner_steps=inner), images[0]) for inner in (0, 10))
    assert straight > 0.1
    assert led < 0.3 * straight


def test_null_text_edits(folder, images):
    editor = null_text(folder, inner_steps=2)
    before = dict(editor._pipeline.unet.attn_processors)
    edited = editor.edit(images, TARGET, SOURCE, 0, [0, 1])
    assert edited.shape == images.shape
    assert float(edited.min()) >= 0
    assert float(edited.max()) <= 1
    assert torch.equal(edited[1:], editor.edit(images[1:], TARGET, SOURCE, 5, [1]))
    assert not torch.allclose(edited, editor.edit(images, SOURCE, SOURCE, 0, [0, 1]), atol=1e-3)
    free = null_text(folder, inner_steps=2, cross_share=0.0, self_share=0.0)
    assert not torch.allclose(edited, free.edit(images, TARGET, SOURCE, 0, [0, 1]), atol=1e-4)
    assert editor._pipeline.unet.attn_processors == before


def test_what_diffusers_cannot_load_is_one_sentence(folder, tmp_path):
    with pytest.raises(UserError, match=r"needs --editor-weights, a local folder of Stable Diffusion.*nothing is down"):
        null_text(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match="holds no Stable Diffusion that diffusers can load"):
        null_text(tmp_path)
    with pytest.raises(UserError, match="steps must be less than the 1000"):
        make_editor(EditorSettings("null_text", weights=folder, steps=1000))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"inner_steps": -1}, "inner steps must not be negative"),
        ({"cross_share": 2.0}, r"cross_share must be in \[0, 1\], not 2"),
        ({"self_share": -0.5}, r"self_share must be in \[0, 1\]"),
        ({}, "null_text needs"),
    ],
)
def test_impossible_settings_are_one_sentence(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        make_editor(EditorSettings("null_text", **settings))


SMALL = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)


def test_clip_embeds_images_and_texts(tmp_path, images):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    words = write_words(tmp_path)
    text = dict(SMALL, projection_dim=12, vocab_size=len(words), max_position_embeddings=16, eos_token_id=1)
    config = transformers.CLIPConfig(
        text_config=text, vision_config=dict(SMALL, projection_dim=12, image_size=32, patch_size=8), projection_dim=12
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    clip = make_embedding("clip", tmp_path)
    found = clip.images(images)
    assert found.shape == (2, 12)
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=to_clip(images, 32)).pooler_output
        torch.testing.assert_close(found, torch.nn.functional.normalize(model.visual_projection(pooled), dim=1))
    assert clip.text("snow").shape == (12,)
    assert float(clip.text("snow").norm()) == pytest.approx(1, abs=1e-5)
    assert not torch.allclose(clip.text("snow"), clip.text("rain"))


def test_blip_says_what_it_sees(tmp_path, images):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *LETTERS]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    transformers.BertTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    text = dict(
        SMALL, vocab_size=len(names), encoder_hidden_size=16, max_position_embeddings=40, pad_token_id=0,
        bos_token_id=5, eos_token_id=3, sep_token_id=3,
    )  # fmt: skip
    vision = dict(SMALL, image_size=32, patch_size=8)
    config = transformers.BlipConfig(text_config=text, vision_config=vision, projection_dim=12)
    transformers.BlipForConditionalGeneration(config).save_pretrained(tmp_path)
    blip = BlipCaption(tmp_path)
    said = blip.caption(images[0])
    assert any(letter in said for letter in LETTERS)
    assert said == blip.caption(images[0])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no BLIP that transformers can load"):
        BlipCaption(tmp_path)


def test_captions_without_weights_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"captions by BLIP need|a local folder of BLIP"):
        BlipCaption(tmp_path)
