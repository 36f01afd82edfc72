"""Dense prediction: networks with heads on the feature maps of a ResNet."""
