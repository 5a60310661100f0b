"""Answers every call with the same words. Handler: helloget.foo"""


def foo(event, context):
    return "hello world"
