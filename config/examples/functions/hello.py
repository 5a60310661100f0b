"""The first function: answers every call with the same words."""


def handler(event, context):
    return "Hello world!"
