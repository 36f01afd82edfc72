"""Print the table of a network: python -m flax_resnet.summary resnet101 --image-size 224."""

from collections.abc import Sequence

from flax_resnet.program import OneLineParser, prepare_streams, program


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of the network given on the command line."""
    parser = OneLineParser(
        prog=program("summary"),
        description="Print the stages, parameters and multiply-adds of a network.",
    )
    parser.add_argument("model", help="one of flax_resnet.list_models()")
    parser.add_argument("--image-size", type=int, default=224, help="default: %(default)s")
    parser.add_argument("--num-classes", type=int, help="default: the model's")
    flags = parser.parse_args(arguments)
    # Imported late, since JAX takes a second: help and usage errors appear at once.
    from flax_resnet.network_summary import summarize
    from flax_resnet.variants import create_model

    fields = {} if flags.num_classes is None else {"num_classes": flags.num_classes}
    try:
        print(summarize(create_model(flags.model, **fields), flags.image_size))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    prepare_streams()
    main()
