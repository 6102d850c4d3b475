package com.atguigu.yygh.model.order;

/** An order with the names that its codes stand for. */
public record OrderView(Order order, String statusText, String hospital, String department, String patient) {
}
